"""Fills a tokenizer with another project's weights, or says what does not fit."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from vq.interop.dialects.diffusers import from_diffusers
from vq.interop.dialects.llamagen import from_llamagen
from vq.interop.dialects.taming import from_taming
from vq.interop.spelling import InteropError
from vq.quantizers import CosineDistance, Distance, EuclideanDistance, VectorQuantizer

__all__ = ["DIALECTS", "Dialect", "InteropError", "from_dialect"]

_GROUPS = 32
"""All three projects normalise in 32 groups, whatever the width; the weights do not say so."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """A project whose weights can be read: how, and what the weights do not say of themselves."""

    translate: Callable[[Mapping[str, Tensor]], dict[str, Tensor]]
    distance: type[Distance]


DIALECTS = {
    "taming": Dialect(from_taming, EuclideanDistance),
    "llamagen": Dialect(from_llamagen, CosineDistance),
    "diffusers": Dialect(from_diffusers, EuclideanDistance),
}
"""The projects whose weights can be read, by name."""


def from_dialect(tokenizer: nn.Module, state: Mapping[str, Tensor], dialect: str) -> None:
    """Fills the tokenizer with the weights; every tensor of both is used, or nothing is changed.

    Args:
        tokenizer: An `ImageTokenizer` with `CNNEncoder`, `CNNDecoder` and `VectorQuantizer(LearnedCodebook)`;
            changed in place.
        state: Names and tensors as the project's file has them.
        dialect: A key of `DIALECTS`.

    Raises:
        InteropError: If a tensor is left over, missing or of another shape (all are listed), or the tokenizer
            would compute something else with them.
    """
    if dialect not in DIALECTS:
        raise InteropError(f"dialect: expected one of {', '.join(DIALECTS)}, got {dialect!r}")
    known = DIALECTS[dialect]
    _check_meaning(tokenizer, dialect)
    translated = known.translate(state)
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
            f"{dialect} weights: expected the tensors of the page's tokenizer, got {'; '.join(problems)}; take the "
            "page whose multipliers, num_blocks, widths and codebook are the weights' own"
        )
    tokenizer.load_state_dict(translated)


def _check_meaning(tokenizer: nn.Module, dialect: str) -> None:
    """Refuses what would load and be wrong: names and shapes say nothing of these."""
    quantizer, wanted = getattr(tokenizer, "quantizer", None), DIALECTS[dialect].distance
    if not isinstance(quantizer, VectorQuantizer):
        raise InteropError(
            f"{dialect} weights: expected a tokenizer with a VectorQuantizer, got {type(quantizer).__name__}; take a "
            "page with a LearnedCodebook"
        )
    if type(quantizer.distance) is not wanted:
        raise InteropError(
            f"{dialect} weights: expected a quantizer with {wanted.__name__}, got {type(quantizer.distance).__name__}; "
            "these codes were learnt with the first, and the other would choose other codes"
        )
    for name, module in tokenizer.named_modules():
        if isinstance(module, nn.GroupNorm) and module.num_groups != _GROUPS:
            raise InteropError(
                f"{dialect} weights: expected {_GROUPS} groups in every norm, got {module.num_groups} in {name} of "
                f"{module.num_channels} channels; networks narrower than 128 channels cannot be taken over"
            )
