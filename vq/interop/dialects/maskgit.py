"""MaskGIT's VQGAN, in the names of its port to PyTorch (open-muse, 1d-tokenizer)."""

import re
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from vq.interop.dialect import Dialect, InteropError, NamedTensors
from vq.interop.spelling import CODEBOOK, INITIALISED
from vq.interop.vqgan import check_vqgan
from vq.zoo.families.maskgit import decoder_section, maskgit

_CODES = "quantize.embedding.weight"
_ENDS = {"stem": "conv_in", "norm": "norm_out", "head": "conv_out"}
_PARTS = {"norm1": "norm1", "conv1": "conv1", "norm2": "norm2", "conv2": "conv2", "shortcut": "nin_shortcut"}
_RESAMPLE = {"encoder": "down_conv", "decoder": "upsample_conv"}
"""The convolution after a resolution. MaskGIT's encoder averages instead; that of MaskBit has one."""
_LEVEL_BLOCK = re.compile(r"(?:encoder\.down|decoder\.up)\.(\d+)\.block\.(\d+)\.conv1\.weight")


def network_names(state: NamedTensors, side: str) -> Iterator[tuple[str, str]]:
    """Yields (their name, our name) of the tensors of the encoder or the decoder.

    Args:
        state: Tensors whose names show the number of resolutions and blocks.
        side: `encoder` or `decoder`.
    """
    levels, blocks = _sizes(state, side)
    stack = "down" if side == "encoder" else "up"
    modules = [(f"{side}.{theirs}", f"{side}.{ours}") for ours, theirs in _ENDS.items()]
    for level in range(levels):
        # Their levels are numbered from the highest resolution, ours in the order of the data.
        ours = level if side == "encoder" else levels - 1 - level
        for block in range(blocks):
            modules += _block(f"{side}.{stack}.{level}.block.{block}", f"{side}.levels.{ours}.{block}")
        modules.append((f"{side}.{stack}.{level}.{_RESAMPLE[side]}", f"{side}.levels.{ours}.{blocks}.conv"))
    for block in range(blocks):
        modules += _block(f"{side}.mid.{block}", f"{side}.middle.{block}")
    for theirs, ours_too in modules:
        yield from ((f"{theirs}.{part}", f"{ours_too}.{part}") for part in ("weight", "bias"))


def describe_decoder(state: NamedTensors) -> dict[str, Any]:
    """The section of the decoder that has some tensors, whose names begin with `decoder`.

    Raises:
        InteropError: If a tensor that tells a size is missing.
    """
    return decoder_section(**_network(state, "decoder"), latent=size(state, "decoder.conv_in.weight", 1))


def describe_networks(state: NamedTensors, project: str = "maskgit") -> dict[str, Any]:
    """The arguments of `vq.zoo.families.maskgit.maskgit` that the encoder and the decoder determine.

    Args:
        state: The tensors of both networks.
        project: The name of the dialect.

    Raises:
        InteropError: If a tensor that tells a size is missing, or the two networks differ in size.
    """
    encoder, decoder = _network(state, "encoder", project), _network(state, "decoder", project)
    if encoder != decoder:
        raise InteropError(
            f"{project} weights: expected an encoder and a decoder of the same sizes, got {encoder} and {decoder}; "
            "give a config of these networks"
        )
    return encoder


def translate_networks(state: NamedTensors, project: str = "maskgit") -> NamedTensors:
    """Renames the tensors of a tokenizer with the networks of MaskGIT.

    Args:
        state: All tensors of the tokenizer.
        project: The name of the dialect.

    Raises:
        InteropError: If a name has no counterpart.
    """
    table = {_CODES: CODEBOOK}
    for side in ("encoder", "decoder"):
        table |= dict(network_names(state, side))
    if leftover := [name for name in state if name not in table]:
        raise InteropError(
            f"{project} weights: expected the tensors of MaskGIT's VQGAN, got {len(leftover)} with no counterpart "
            f"({', '.join(leftover[:6])}{', ...' if len(leftover) > 6 else ''}); check which project wrote the weights"
        )
    ours = {table[name]: tensor for name, tensor in state.items()}
    return ours | ({INITIALISED: torch.tensor(1, dtype=torch.uint8)} if _CODES in state else {})


def size(state: NamedTensors, name: str, axis: int, project: str = "maskgit") -> int:
    """The size of an axis of a tensor.

    Raises:
        InteropError: If there is no such tensor, or it is neither a matrix nor that of a convolution.
    """
    if name not in state or state[name].ndim not in (2, 4):
        found = f"the shape {tuple(state[name].shape)}" if name in state else "none"
        raise InteropError(
            f"{project} weights: expected a tensor {name} with 2 or 4 axes, got {found}; check which project wrote the "
            "weights"
        )
    return state[name].shape[axis]


def _network(state: NamedTensors, side: str, project: str = "maskgit") -> dict[str, Any]:
    """The arguments that both networks take."""
    levels, blocks = _sizes(state, side)
    stack = "down" if side == "encoder" else "up"
    widths = [
        size(state, f"{side}.{stack}.{level}.block.0.conv1.weight", 0, project) for level in range(levels)
    ]
    width = size(state, f"{side}.conv_in.weight", 0, project) if side == "encoder" else min(widths, default=0)
    if not widths or any(w % width for w in widths):
        raise InteropError(
            f"{project} weights: expected the {side}'s resolutions to have multiples of {width} channels, "
            f"got {widths}; check which project wrote the weights"
        )
    return {"width": width, "multipliers": [w // width for w in widths], "num_blocks": blocks}


def _describe(state: NamedTensors) -> dict[str, Any]:
    networks = describe_networks(state)
    return {"tokenizer": maskgit(**networks, codes=size(state, _CODES, 0), dim=size(state, _CODES, 1))}


def _check(tokenizer: nn.Module) -> None:
    check_vqgan(tokenizer, "maskgit", "EuclideanDistance", pixels=(0.0, 1.0))


def _sizes(state: NamedTensors, side: str) -> tuple[int, int]:
    """The number of resolutions, and of blocks at each."""
    found = [
        (int(match[1]), int(match[2]))
        for name in state
        if name.startswith(side) and (match := _LEVEL_BLOCK.fullmatch(name))
    ]
    return max((level for level, _ in found), default=-1) + 1, max((b for _, b in found), default=-1) + 1


def _block(theirs: str, ours: str) -> list[tuple[str, str]]:
    return [(f"{theirs}.{part}", f"{ours}.{own}") for own, part in _PARTS.items()]


DIALECT = Dialect(
    name="maskgit",
    recognises=lambda state: (
        "encoder.down.0.block.0.conv1.weight" in state
        and "encoder.mid.0.conv1.weight" in state
        and "encoder.conv_in.bias" not in state
        and "quantize.embedding.weight" in state
    ),
    describe=_describe,
    translate=translate_networks,
    check=_check,
)
"""The weights of MaskGIT's VQGAN."""
