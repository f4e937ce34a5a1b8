"""The tokenizers of Infinity: VQGAN without attention, and signs at several scales."""

import re
from dataclasses import replace
from typing import Any

from torch import nn

from vq.interop.dialect import Dialect, InteropError, NamedTensors
from vq.interop.dialects import taming
from vq.interop.spelling import CODEBOOK, INITIALISED, Spelling, to_ours
from vq.interop.vqgan import check_networks, describe_networks
from vq.quantizers import BinarySphericalQuantizer, MultiScaleResidualQuantizer
from vq.zoo.families.infinity import RESOLUTIONS, tokenizer

SPELLING: Spelling = replace(taming.SPELLING, project="infinity")

_LAYER = re.compile(r"(.*)\.(conv|norm)\.(weight|bias)")
"""Convolutions and norms are attributes of layers that also serve videos."""
MAX_BITS = 62


def describe_infinity(state: NamedTensors, *, resolution: int = 256) -> dict[str, Any]:
    """Returns the config of an Infinity tokenizer for square images of one size.

    Args:
        state: The content of `vae` in the checkpoint.
        resolution: The height and width of the images in pixels, which decides the scales: 256, 512 or 1024.

    Raises:
        InteropError: If there are no published scales for the resolution, a tensor that tells a size is missing, or
            the indices would not fit 64 bits.
    """
    if resolution not in RESOLUTIONS:
        raise InteropError(
            f"infinity weights: expected a resolution of {', '.join(map(str, RESOLUTIONS))}, whose scales Infinity "
            f"gives, got {resolution}; give a config with the scales"
        )
    networks = describe_networks(_plain(state), SPELLING)
    bits = networks["latent"]
    if bits > MAX_BITS:
        raise InteropError(
            f"infinity weights: expected codes of at most {MAX_BITS} bits, got {bits}; an index of {bits} bits does "
            "not fit a 64-bit integer, so such a tokenizer cannot be converted"
        )
    return {"tokenizer": tokenizer(bits=bits, resolution=resolution, networks=networks)}


def check_infinity(model: nn.Module) -> None:
    """Refuses networks and quantizers in which the weights of an Infinity tokenizer would compute something else.

    Args:
        model: The tokenizer that is to get the weights.

    Raises:
        InteropError: If the quantizer is another one, or a norm has another number of groups.
    """
    quantizer = getattr(model, "quantizer", None)
    inner = getattr(quantizer, "quantizer", None)
    if not (
        isinstance(quantizer, MultiScaleResidualQuantizer)
        and isinstance(inner, BinarySphericalQuantizer)
        and quantizer.upsampling == "bilinear"
    ):
        raise InteropError(
            "infinity weights: expected a tokenizer with a MultiScaleResidualQuantizer of a BinarySphericalQuantizer "
            f"and upsampling='bilinear', got {type(quantizer).__name__} of {type(inner).__name__} and "
            f"{getattr(quantizer, 'upsampling', 'no upsampling')!r}; use a config with one"
        )
    check_networks(model, "infinity")


def _plain(state: NamedTensors) -> NamedTensors:
    """The tensors by the names of taming, in which convolutions and norms are layers of their own."""
    return {
        f"{match[1]}.{match[3]}" if (match := _LAYER.fullmatch(name)) else name: tensor
        for name, tensor in state.items()
    }


def _translate(state: NamedTensors) -> NamedTensors:
    ours = to_ours(_plain(state), SPELLING)
    return {name: tensor for name, tensor in ours.items() if name not in (CODEBOOK, INITIALISED)}


DIALECT = Dialect(
    name="infinity",
    recognises=lambda state: (
        "encoder.conv_in.conv.weight" in state
        and state["encoder.conv_in.conv.weight"].ndim == 4
        and "encoder.down.0.block.0.norm1.norm.weight" in state
    ),
    describe=describe_infinity,
    translate=_translate,
    check=check_infinity,
    ignored=r"quantizer?\.lfq\.mask",  # the values of the bits
    options={"resolution": 256},
)
"""The weights of Infinity's tokenizers."""
