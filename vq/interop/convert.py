"""Recognises the weights of other projects, derives the config of their model, and translates them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from vq.config import trained_section
from vq.interop.dialect import Dialect, InteropError, NamedTensors
from vq.interop.dialects import (
    beitv2,
    cosmos,
    diffusers,
    emu3,
    infinity,
    janus,
    llamagen,
    llamagen_gpt,
    maskbit,
    maskgit,
    rq_vae,
    taming,
    taming_gumbel,
    titok,
    unitok,
    var,
)
from vq.interop.dialects.seed_voken import ibq, open_magvit2
from vq.registry import build
from vq.text import shown, suggest

DIALECTS: dict[str, Dialect] = {
    module.DIALECT.name: module.DIALECT
    for module in (
        taming,
        taming_gumbel,
        ibq,
        llamagen,
        llamagen_gpt,
        janus,
        diffusers,
        beitv2,
        var,
        infinity,
        cosmos,
        maskgit,
        maskbit,
        titok,
        unitok,
        open_magvit2,
        rq_vae,
        emu3,
    )
}
"""The projects whose weights can be read, by name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversion:
    """Weights of another project in the form of this one.

    Attributes:
        dialect: The name of the dialect that they were written in.
        config: The sections of a config that describe the model.
        tensors: The state dict of the model.
        ignored: The names in the file that are not part of the model, as its dialect says.
        num_read: The number of tensors in the file.
    """

    dialect: str
    config: Mapping[str, Any]
    tensors: NamedTensors
    ignored: tuple[str, ...]
    num_read: int


def recognise(state: NamedTensors) -> str:
    """Returns the name of the dialect in which some tensors are written.

    Raises:
        InteropError: If none is known, or several are possible; the message names them.
    """
    possible = [
        name for name, dialect in DIALECTS.items() if (own := dialect.own(state)) and dialect.recognises(own)
    ]
    if len(possible) == 1:
        return possible[0]
    if possible:
        raise InteropError(
            f"weights: expected names and shapes of one project, got those that {' and '.join(possible)} share; say "
            "which it is"
        )
    raise InteropError(
        f"weights: expected those of a known project ({', '.join(DIALECTS)}), got {len(state)} tensors such as "
        f"{', '.join(list(state)[:4]) or 'none'}; docs/checkpoints.md lists what can be read"
    )


def convert(
    state: NamedTensors,
    dialect: str | None = None,
    *,
    options: Mapping[str, Any] | None = None,
    config: Mapping[str, Any] | None = None,
) -> Conversion:
    """Converts the weights of another project. All tensors of the file and of the model must match.

    Args:
        state: The tensors of the project's file, by name; they may be on the meta device.
        dialect: The name of the project, a key of `DIALECTS`; None to recognise it.
        options: Options of the dialect, such as `with_decoder` of `beitv2`; none beside a config.
        config: A config of the model, in place of the one that the names and shapes give.

    Raises:
        InteropError: If the project is not known, tensors are left over, missing or of another shape (all are
            listed), an option does not exist, or the model would compute something else with the weights.
    """
    if options and config is not None:
        raise InteropError(
            f"weights: expected no options beside a config, which describes the whole model, got {', '.join(options)}"
        )
    known = _dialect(recognise(state) if dialect is None else dialect)
    own = known.own(state)
    described = config if config is not None else known.describe(own, **options_of(known.name, options or {}))
    section = trained_section(described)
    with torch.device("meta"):
        model = build(described[section], path=section)
    tensors = _fitting(model, known, own)
    kept = {f"{prefix}{name}" for name in own for prefix in ("", *known.prefixes)}
    ignored = tuple(name for name in state if name not in kept)
    return Conversion(
        dialect=known.name, config=described, tensors=tensors, ignored=ignored, num_read=len(state)
    )


def from_dialect(model: nn.Module, state: NamedTensors, dialect: str) -> None:
    """Loads the weights of another project into a model. All tensors of both must match, else nothing is changed.

    Args:
        model: A tokenizer, or the model that `convert` would describe. It is changed in place. If it is a tokenizer
            without a decoder, the weights of the decoder are not used.
        state: The tensors of the project's file, by name.
        dialect: The name of the project, a key of `DIALECTS`.

    Raises:
        InteropError: If tensors are left over, missing or of another shape (all are listed), or the model would
            compute something else with them.
    """
    known = _dialect(dialect)
    model.load_state_dict(dict(_fitting(model, known, known.own(state))))


def _dialect(name: str) -> Dialect:
    if name not in DIALECTS:
        raise InteropError(
            f"dialect: expected one of {', '.join(DIALECTS)}, got {name!r}; choose the project of the weights"
        )
    return DIALECTS[name]


def options_of(dialect: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a dialect: those that are given, and the defaults of the others.

    Args:
        dialect: The name of the project, a key of `DIALECTS`.
        given: Option -> value.

    Raises:
        InteropError: If there is no such option, or a value has another type.
    """
    known = _dialect(dialect)
    for key, value in given.items():
        if key not in known.options:
            raise InteropError(
                f"{dialect} weights: expected options among {', '.join(known.options) or 'none'}, got {key!r}"
                f"{suggest(key, known.options)}"
            )
        if type(value) is not type(known.options[key]):
            kind = type(known.options[key]).__name__
            raise InteropError(f"{dialect} weights: expected {key} to be a {kind}, got {shown(value)}")
    return {**known.options, **given}


def _fitting(model: nn.Module, dialect: Dialect, own_tensors: NamedTensors) -> NamedTensors:
    """The translated tensors, if they are exactly those of the model."""
    dialect.check(model)
    translated = dialect.translate(own_tensors)
    if getattr(model, "decoder", None) is None:
        translated = {name: t for name, t in translated.items() if not name.startswith("decoder.")}
    own = model.state_dict()
    differences = {
        "left over": [n for n in translated if n not in own],
        "missing": [n for n in own if n not in translated],
        "of another shape": [
            f"{n} {tuple(t.shape)} for {tuple(own[n].shape)}"
            for n, t in translated.items()
            if n in own and t.shape != own[n].shape
        ],
    }
    problems = [
        f"{len(names)} {kind}: {', '.join(names[:6])}{', ...' if len(names) > 6 else ''}"
        for kind, names in differences.items()
        if names
    ]
    if problems:
        raise InteropError(
            f"{dialect.name} weights: expected the tensors of the config's model, got {'; '.join(problems)}; use the "
            "config whose depth, widths and codebook are those of the weights"
        )
    return translated
