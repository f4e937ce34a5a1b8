"""The discrete tokenizers of images of Cosmos: finite scalar quantization of wavelet bands."""

import math
from dataclasses import replace
from typing import Any

from torch import nn

from vq.interop.dialect import Dialect, InteropError, NamedTensors
from vq.interop.dialects import taming
from vq.interop.spelling import CODEBOOK, INITIALISED, Spelling, to_ours
from vq.interop.vqgan import check_networks, describe_networks
from vq.quantizers import FiniteScalarQuantizer
from vq.zoo.families.cosmos import LEVELS, tokenizer

SPELLING: Spelling = replace(taming.SPELLING, project="cosmos")
EPS = -1e-3
IMAGE_CHANNELS = 3


def describe_cosmos(state: NamedTensors) -> dict[str, Any]:
    """Returns the config of a discrete Cosmos tokenizer of images.

    Args:
        state: The tensors of the published `autoencoder.jit`.

    Raises:
        InteropError: If a tensor that tells a size is missing, or the encoder and the decoder do not mirror each
            other.
    """
    networks = describe_networks(state, SPELLING)
    patch_size = math.isqrt(state["encoder.conv_in.weight"].shape[1] // IMAGE_CHANNELS)
    halvings = sum(
        f"encoder.down.{i}.downsample.conv.weight" in state for i in range(len(networks["multipliers"]))
    )
    section = tokenizer(
        width=networks["width"],
        multipliers=networks["multipliers"],
        num_blocks=networks["num_blocks"],
        patch_size=patch_size,
        factor=patch_size * 2**halvings,
        latent=networks["latent"],
    )
    return {"tokenizer": section}


def check_cosmos(model: nn.Module) -> None:
    """Refuses networks and quantizers in which the weights of a Cosmos tokenizer would compute something else.

    Args:
        model: The tokenizer that is to get the weights.

    Raises:
        InteropError: If the quantizer is another one, or a norm has another number of groups.
    """
    quantizer = getattr(model, "quantizer", None)
    if not (
        isinstance(quantizer, FiniteScalarQuantizer)
        and (quantizer.levels, quantizer.eps, quantizer.shift) == (LEVELS, EPS, "atanh")
    ):
        raise InteropError(
            f"cosmos weights: expected a tokenizer with FiniteScalarQuantizer(levels={list(LEVELS)}, eps={EPS}), got "
            f"{type(quantizer).__name__} with levels {getattr(quantizer, 'levels', None)} and eps "
            f"{getattr(quantizer, 'eps', None)}; use a config with it"
        )
    check_networks(model, "cosmos")


def _translate(state: NamedTensors) -> NamedTensors:
    ours = to_ours(state, SPELLING)
    return {name: tensor for name, tensor in ours.items() if name not in (CODEBOOK, INITIALISED)}


def _recognises(state: NamedTensors) -> bool:
    stem, code = state.get("encoder.conv_in.weight"), state.get("quant_conv.weight")
    return (
        stem is not None
        and code is not None
        and stem.ndim == 4
        and stem.shape[1] % (4 * IMAGE_CHANNELS) == 0
        and len(code) == len(LEVELS)
        and "encoder.mid.attn_1.q.weight" in state
        and "quantize.embedding.weight" not in state
    )


DIALECT = Dialect(
    name="cosmos",
    recognises=_recognises,
    describe=describe_cosmos,
    translate=_translate,
    check=check_cosmos,
    # Constants: a TorchScript archive holds the buffers that a state dict leaves out.
    ignored=r"(encoder\.patcher|decoder\.unpatcher|quantizer)\..*",
)
"""The weights of the discrete Cosmos tokenizers of images."""
