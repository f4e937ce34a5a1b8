"""Loads the weights of another project into a tokenizer."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from vq.interop.dialects.beitv2 import check_beitv2, from_beitv2
from vq.interop.dialects.diffusers import from_diffusers
from vq.interop.dialects.llamagen import from_llamagen
from vq.interop.dialects.taming import from_taming
from vq.interop.spelling import InteropError, NamedTensors
from vq.quantizers import CosineDistance, Distance, EuclideanDistance, VectorQuantizer

__all__ = ["DIALECTS", "Dialect", "InteropError", "from_dialect"]

_GROUPS = 32
"""The number of groups in every norm of a VQGAN, for any width. It cannot be read from the weights."""


def _check_groups(tokenizer: nn.Module) -> None:
    for name, module in tokenizer.named_modules():
        if isinstance(module, nn.GroupNorm) and module.num_groups != _GROUPS:
            raise InteropError(
                f"weights of a VQGAN: expected {_GROUPS} groups in every norm, got {module.num_groups} in {name} of "
                f"{module.num_channels} channels; networks with fewer than 128 channels cannot be converted"
            )


@dataclass(frozen=True, slots=True)
class Dialect:
    """A project whose weights can be loaded.

    Attributes:
        translate: The function that renames the project's tensors.
        distance: The distance of the project's quantizer, which cannot be read from the weights.
        check: The function that refuses networks in which the weights would compute something else.
    """

    translate: Callable[[NamedTensors], NamedTensors]
    distance: type[Distance]
    check: Callable[[nn.Module], None] = _check_groups


DIALECTS = {
    "taming": Dialect(from_taming, EuclideanDistance),
    "llamagen": Dialect(from_llamagen, CosineDistance),
    "diffusers": Dialect(from_diffusers, EuclideanDistance),
    "beitv2": Dialect(from_beitv2, CosineDistance, check_beitv2),
}
"""The projects whose weights can be loaded, by name."""


def from_dialect(tokenizer: nn.Module, state: NamedTensors, dialect: str) -> None:
    """Loads the weights of another project into a tokenizer. All tensors of both must match, else nothing is changed.

    Args:
        tokenizer: An `ImageTokenizer` with `CNNEncoder`, `CNNDecoder` and `VectorQuantizer(LearnedCodebook)`; for
            `beitv2` the tokenizer that `describe_beitv2` describes. It is changed in place. If it has no decoder, the
            weights of the decoder are not used.
        state: The tensors of the project's file, by name.
        dialect: The name of the project, a key of `DIALECTS`.

    Raises:
        InteropError: If tensors are left over, missing or of another shape (all are listed), or the tokenizer would
            compute something else with them.
    """
    if dialect not in DIALECTS:
        raise InteropError(
            f"dialect: expected one of {', '.join(DIALECTS)}, got {dialect!r}; choose the project of the weights"
        )
    known = DIALECTS[dialect]
    _check_meaning(tokenizer, dialect)
    translated = known.translate(state)
    if getattr(tokenizer, "decoder", None) is None:
        translated = {name: t for name, t in translated.items() if not name.startswith("decoder.")}
    own = tokenizer.state_dict()
    problems = [
        f"{len(names)} {kind}: {', '.join(names[:6])}{', ...' if len(names) > 6 else ''}"
        for kind, names in (
            ("left over", [n for n in translated if n not in own]),
            ("missing", [n for n in own if n not in translated]),
            (
                "of another shape",
                [
                    f"{n} {tuple(t.shape)} for {tuple(own[n].shape)}"
                    for n, t in translated.items()
                    if n in own and t.shape != own[n].shape
                ],
            ),
        )
        if names
    ]
    if problems:
        raise InteropError(
            f"{dialect} weights: expected the tensors of the config's tokenizer, got {'; '.join(problems)}; use the "
            "config whose depth, widths and codebook are those of the weights"
        )
    tokenizer.load_state_dict(translated)


def _check_meaning(tokenizer: nn.Module, dialect: str) -> None:
    """Rejects tokenizers whose weights would load but compute something else, which names and shapes do not show."""
    quantizer, wanted = getattr(tokenizer, "quantizer", None), DIALECTS[dialect].distance
    if not isinstance(quantizer, VectorQuantizer):
        raise InteropError(
            f"{dialect} weights: expected a tokenizer with a VectorQuantizer, got {type(quantizer).__name__}; use a "
            "config with one"
        )
    if type(quantizer.distance) is not wanted:
        raise InteropError(
            f"{dialect} weights: expected a quantizer with {wanted.__name__}, got {type(quantizer.distance).__name__}; "
            "the codes were learned with the former, and the latter would select other codes"
        )
    DIALECTS[dialect].check(tokenizer)
