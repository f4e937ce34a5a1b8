"""MaskBit and VQGAN+: the networks of MaskGIT in other names, with signs or a codebook as codes."""

import re
from typing import Any

from torch import nn

from vq.interop.dialect import Dialect, NamedTensors
from vq.interop.dialects.maskgit import describe_networks, size, translate_networks
from vq.interop.vqgan import check_networks, check_vqgan
from vq.quantizers import LookupFreeQuantizer
from vq.zoo.families.maskbit import maskbit, vqgan_plus

NAME = "maskbit"
_CODES = "quantize.embedding.weight"
_UP = re.compile(r"decoder\.up\.(\d+)\.")


def _describe(state: NamedTensors) -> dict[str, Any]:
    state = _in_names_of_maskgit(state)
    sizes = {**describe_networks(state, NAME), "strided": "encoder.down.0.down_conv.weight" in state}
    if _CODES in state:
        codes, dim = (size(state, _CODES, axis, NAME) for axis in (0, 1))
        return {"tokenizer": vqgan_plus(codes=codes, dim=dim, **sizes)}
    return {"tokenizer": maskbit(bits=size(state, "encoder.conv_out.weight", 0, NAME), **sizes)}


def _translate(state: NamedTensors) -> NamedTensors:
    return translate_networks(_in_names_of_maskgit(state), NAME)


def _in_names_of_maskgit(state: NamedTensors) -> NamedTensors:
    """The tensors by the names that MaskGIT's port gives to the same layers.

    The port numbers the decoder's resolutions from the highest one. `ConvDecoder`, which all but the oldest weights
    have, numbers them from the lowest one, so that number 0 ends with a convolution. `ConvDecoderLegacy` does as the
    port.
    """
    last = max((int(match[1]) for name in state if (match := _UP.match(name))), default=0)
    from_lowest = "decoder.up.0.upsample_conv.weight" in state

    def renamed(name: str) -> str:
        if from_lowest:
            name = _UP.sub(lambda match: f"decoder.up.{last - int(match[1])}.", name)
        return name.replace("mid.res_blocks.", "mid.").replace(".res_blocks.", ".block.")

    return {renamed(name): tensor for name, tensor in state.items()}


def _check(tokenizer: nn.Module) -> None:
    if isinstance(getattr(tokenizer, "quantizer", None), LookupFreeQuantizer):
        check_networks(tokenizer, NAME, (0.0, 1.0))
    else:
        check_vqgan(tokenizer, NAME, "EuclideanDistance", pixels=(0.0, 1.0))


DIALECT = Dialect(
    name=NAME,
    recognises=lambda state: (
        "encoder.down.0.res_blocks.0.conv1.weight" in state
        and "decoder.mid.res_blocks.0.conv1.weight" in state
    ),
    describe=_describe,
    translate=_translate,
    check=_check,
    ignored=r"quantize\.(bits_to_indices|codebook)",
)
"""The weights of MaskBit's tokenizers and VQGAN+. The ignored buffers are constants: the powers of 2 and all codes."""
