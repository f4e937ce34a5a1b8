"""Open-MAGVIT2 of SEED-Voken: networks without attention, signs as codes, and averaged weights as those of IBQ."""

import re
from collections.abc import Iterator
from typing import Any

from jaxtyping import Shaped
from torch import Tensor, nn

from vq.interop.dialect import Dialect, InteropError, NamedTensors
from vq.interop.dialects.seed_voken.ibq import UNUSED, preferring_averages
from vq.interop.vqgan import check_networks
from vq.quantizers import LookupFreeQuantizer
from vq.zoo.families.open_magvit2 import tokenizer

NAME = "open_magvit2"
_ENDS = {"conv_in": "stem", "norm_out": "norm", "conv_out": "head"}
_PARTS = {"norm1": "norm1", "conv1": "conv1", "norm2": "norm2", "conv2": "conv2", "nin_shortcut": "shortcut"}
_STACKS = {"encoder": "encoder.down", "decoder": "decoder.up"}
_RESAMPLE = {"encoder": "downsample", "decoder": "upsample.conv1"}


def _describe(state: NamedTensors) -> dict[str, Any]:
    state = preferring_averages(state, NAME)
    levels, blocks = _counts(state, "encoder")
    width = _num_outputs(state, "encoder.conv_in.weight")
    widths = [_num_outputs(state, f"encoder.down.{level}.block.0.conv1.weight") for level in range(levels)]
    if not widths or any(w % width for w in widths):
        raise InteropError(
            f"{NAME} weights: expected resolutions with multiples of {width} channels, got {widths}; check which "
            "project wrote the weights"
        )
    section = tokenizer(
        bits=_num_outputs(state, "encoder.conv_out.weight"),
        multipliers=[w // width for w in widths],
        width=width,
        num_blocks=blocks,
    )
    return {"tokenizer": section}


def _translate(state: NamedTensors) -> NamedTensors:
    state = preferring_averages(state, NAME)
    table = {
        f"{theirs}.{part}": f"{ours}.{part}" for theirs, ours in _layers(state) for part in ("weight", "bias")
    }
    if leftover := [name for name in state if name not in table]:
        raise InteropError(
            f"{NAME} weights: expected the tensors of Open-MAGVIT2, got {len(leftover)} with no counterpart "
            f"({', '.join(leftover[:6])}{', ...' if len(leftover) > 6 else ''}); check which project wrote the weights"
        )
    return {
        table[name]: _for_pixel_shuffle(tensor) if ".upsample." in name else tensor
        for name, tensor in state.items()
    }


def _layers(state: NamedTensors) -> Iterator[tuple[str, str]]:
    """Yields (their name, our name) of every layer."""
    for side, stack in _STACKS.items():
        levels, blocks = _counts(state, side)
        yield from ((f"{side}.{theirs}", f"{side}.{ours}") for theirs, ours in _ENDS.items())
        for block in range(blocks):
            yield from _block(f"{side}.mid_block.{block}", f"{side}.middle.{block}")
        for level in range(levels):
            # Their levels are numbered from the highest resolution, ours in the order of the data.
            own = level if side == "encoder" else levels - 1 - level
            for block in range(blocks):
                yield from _block(f"{stack}.{level}.block.{block}", f"{side}.levels.{own}.{block}")
            yield f"{stack}.{level}.{_RESAMPLE[side]}", f"{side}.levels.{own}.{blocks}"
            yield f"{side}.adaptive.{level}.gamma", f"{side}.adaptive.{own}.scale"
            yield f"{side}.adaptive.{level}.beta", f"{side}.adaptive.{own}.shift"


def _block(theirs: str, ours: str) -> Iterator[tuple[str, str]]:
    yield from ((f"{theirs}.{part}", f"{ours}.{own}") for part, own in _PARTS.items())


def _counts(state: NamedTensors, side: str) -> tuple[int, int]:
    """The number of resolutions, and of blocks at each."""
    block = re.compile(rf"{re.escape(_STACKS[side])}\.(\d+)\.block\.(\d+)\.conv1\.weight")
    found = [(int(match[1]), int(match[2])) for name in state if (match := block.fullmatch(name))]
    return max((level for level, _ in found), default=-1) + 1, max((b for _, b in found), default=-1) + 1


def _num_outputs(state: NamedTensors, name: str) -> int:
    if name not in state or state[name].ndim != 4:
        found = f"the shape {tuple(state[name].shape)}" if name in state else "none"
        raise InteropError(
            f"{NAME} weights: expected a tensor {name} with 4 axes, got {found}; check which project wrote the weights"
        )
    return state[name].shape[0]


def _for_pixel_shuffle(tensor: Shaped[Tensor, "channels ..."]) -> Shaped[Tensor, "channels ..."]:
    """Reorders output channels from (row, column, channel) to (channel, row, column)."""
    if len(tensor) % 4:  # of another shape, which the comparison with the model reports
        return tensor
    return tensor.unflatten(0, (4, -1)).transpose(0, 1).flatten(0, 1)


def _check(model: nn.Module) -> None:
    quantizer = getattr(model, "quantizer", None)
    if not isinstance(quantizer, LookupFreeQuantizer):
        raise InteropError(
            f"{NAME} weights: expected a tokenizer with a LookupFreeQuantizer, got {type(quantizer).__name__}; use a "
            "config with one"
        )
    check_networks(model, NAME)


def _recognises(state: NamedTensors) -> bool:
    """Whether the decoder has norms that depend on the codes; the tokenizer of videos has other first convolutions."""
    stem = state.get("encoder.conv_in.weight")
    return stem is not None and stem.ndim == 4 and "decoder.adaptive.0.gamma.weight" in state


DIALECT = Dialect(
    name=NAME,
    recognises=_recognises,
    describe=_describe,
    translate=_translate,
    check=_check,
    ignored=UNUSED,
)
"""The weights of Open-MAGVIT2's tokenizers of images."""
