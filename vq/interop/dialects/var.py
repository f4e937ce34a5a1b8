"""The tokenizer of VAR: VQGAN with a multi-scale quantizer and one convolution for queries, keys and values."""

import re
from dataclasses import replace
from typing import Any

from torch import nn

from vq.interop.dialect import Dialect, InteropError, NamedTensors
from vq.interop.dialects import taming
from vq.interop.spelling import to_ours
from vq.interop.vqgan import check_distance, check_networks, describe_vqgan
from vq.quantizers import MultiScaleResidualQuantizer
from vq.zoo.families.var import SCALES, multi_scale

SPELLING = replace(taming.SPELLING, project="var")
RATIO = 0.5
"""The weight of the convolutions after the interpolation, which cannot be read from the weights."""

_QKV = re.compile(r"(.*\.attn(?:_1|\.\d+))\.qkv\.(weight|bias)")
_PHI = re.compile(r"quantize\.quant_resi\.qresi_ls\.(\d+)\.(weight|bias)")
_NESTED = re.compile(r"quantizer\.(codebook\..*)")


def describe_var(state: NamedTensors, *, resolution: int = 256) -> dict[str, Any]:
    """Returns the config of VAR's tokenizer for images of one size.

    Args:
        state: The content of the checkpoint.
        resolution: The height and width of the images in pixels, which decides the scales: 256 or 512.

    Raises:
        InteropError: If there are no published scales for the resolution, or a tensor that tells a size is missing.
    """
    if resolution not in SCALES:
        raise InteropError(
            f"var weights: expected the resolution {' or '.join(map(str, SCALES))}, whose scales VAR gives, got "
            f"{resolution}; give a config with the scales"
        )
    split = _split(state)
    phi = [name for name in state if _PHI.fullmatch(name)]
    plain = describe_vqgan(split, SPELLING, distance="EuclideanDistance")
    section = multi_scale(
        plain["tokenizer"],
        scales=SCALES[resolution],
        num_convs=len(phi) // 2,
        kernel=state["quant_conv.weight"].shape[-1],
    )
    return {"tokenizer": section}


def check_var(tokenizer: nn.Module) -> None:
    """Refuses networks and quantizers in which the weights of VAR's tokenizer would compute something else.

    Args:
        tokenizer: The tokenizer that is to get the weights.

    Raises:
        InteropError: If the quantizer is not multi-scale, blends its convolutions with another weight, or
            the distance or the norms differ.
    """
    quantizer = getattr(tokenizer, "quantizer", None)
    if not isinstance(quantizer, MultiScaleResidualQuantizer) or quantizer.mix != RATIO:
        raise InteropError(
            f"var weights: expected a tokenizer with a MultiScaleResidualQuantizer of mix {RATIO}, got "
            f"{type(quantizer).__name__}{f' of mix {mix}' if (mix := getattr(quantizer, 'mix', None)) else ''}; use "
            "a config with one"
        )
    check_distance(quantizer, "var", "EuclideanDistance")
    check_networks(tokenizer, "var")


def _split(state: NamedTensors) -> NamedTensors:
    """The tensors of the VQGAN, with one convolution each for queries, keys and values."""
    split = {}
    for name, tensor in state.items():
        if match := _QKV.fullmatch(name):
            for part, own in zip("qkv", tensor.tensor_split(3), strict=True):
                split[f"{match[1]}.{part}.{match[2]}"] = own
        elif not _PHI.fullmatch(name):
            split[name] = tensor
    return split


def _translate(state: NamedTensors) -> NamedTensors:
    ours = {
        _NESTED.sub(r"quantizer.quantizer.\1", name): tensor
        for name, tensor in to_ours(_split(state), SPELLING).items()
    }
    for name, tensor in state.items():
        if match := _PHI.fullmatch(name):
            ours[f"quantizer.convs.{match[1]}.{match[2]}"] = tensor
    return ours


DIALECT = Dialect(
    name="var",
    recognises=lambda state: (
        "quantize.quant_resi.qresi_ls.0.weight" in state and "encoder.mid.attn_1.qkv.weight" in state
    ),
    describe=describe_var,
    translate=_translate,
    check=check_var,
    ignored=r"quantize\.ema_vocab_hit_SV",  # how often each code was used in training
    options={"resolution": 256},
)
"""The weights of VAR's tokenizer."""
