"""The VQGAN of taming-transformers whose index is the argmax of a linear map (`GumbelVQ`)."""

from dataclasses import replace
from typing import Any

from torch import nn

from vq.interop.dialect import Dialect, InteropError, NamedTensors
from vq.interop.dialects import taming
from vq.interop.spelling import INITIALISED, to_ours, to_theirs
from vq.interop.vqgan import check_networks, describe_networks
from vq.quantizers import GumbelQuantizer
from vq.zoo.families.taming import gumbel

SPELLING = replace(taming.SPELLING, project="taming_gumbel")
PROJECTION = "quantize.proj.weight"
_QUANTIZER = {
    PROJECTION: "quantizer.to_logits.weight",
    "quantize.proj.bias": "quantizer.to_logits.bias",
    "quantize.embed.weight": "quantizer.codes",
}


def describe_taming_gumbel(state: NamedTensors) -> dict[str, Any]:
    """Returns the config of the tokenizer that has some tensors.

    Args:
        state: The tensors of the tokenizer.

    Raises:
        InteropError: If a tensor that tells a size is missing, or the codes and the features that are projected to
            logits differ in their dimension.
    """
    codes, dim = state["quantize.embed.weight"].shape
    if tuple(state[PROJECTION].shape) != (codes, dim, 1, 1):
        raise InteropError(
            f"taming_gumbel weights: expected {PROJECTION} of shape {(codes, dim, 1, 1)}, as the codes have the shape "
            f"{(codes, dim)}, got {tuple(state[PROJECTION].shape)}; only models whose codes have as many channels as "
            "the features can be converted"
        )
    return {"tokenizer": gumbel(codes=codes, dim=dim, networks=describe_networks(state, SPELLING))}


def check_taming_gumbel(model: nn.Module) -> None:
    """Refuses networks and quantizers in which the weights would compute something else.

    Args:
        model: The tokenizer that is to get the weights.

    Raises:
        InteropError: If the quantizer is another one, or a norm has another number of groups.
    """
    quantizer = getattr(model, "quantizer", None)
    if not isinstance(quantizer, GumbelQuantizer):
        raise InteropError(
            f"taming_gumbel weights: expected a tokenizer with a GumbelQuantizer, got {type(quantizer).__name__}; use "
            "a config with one"
        )
    check_networks(model, "taming_gumbel")


def _translate(state: NamedTensors) -> NamedTensors:
    ours = dict(to_ours({n: t for n, t in state.items() if n not in _QUANTIZER}, SPELLING))
    del ours[INITIALISED]
    for theirs, name in _QUANTIZER.items():
        if theirs in state:
            ours[name] = state[theirs][:, :, 0, 0] if theirs == PROJECTION else state[theirs]
    return ours


def from_taming_gumbel(state: NamedTensors) -> NamedTensors:
    """Converts the names and shapes of the tensors of `GumbelVQ` to those of an `ImageTokenizer`.

    The networks of the loss are dropped, and so is everything but `first_stage_model.*` if that exists.

    Args:
        state: The content of `state_dict` in the checkpoint.

    Returns:
        A state dict for `ImageTokenizer` with `CNNEncoder`, `GumbelQuantizer` and `CNNDecoder`. The tensors share the
        memory of the input.

    Raises:
        InteropError: If a name has no counterpart.
    """
    return DIALECT.read(state)


def to_taming_gumbel(state: NamedTensors) -> NamedTensors:
    """Converts the state dict of an `ImageTokenizer` with a `GumbelQuantizer` to the names of `GumbelVQ`.

    Args:
        state: The state dict of the tokenizer.

    Raises:
        InteropError: If a name has no counterpart, because the encoder, decoder or quantizer is of another class.
    """
    own = {ours: theirs for theirs, ours in _QUANTIZER.items()}
    theirs = dict(to_theirs({n: t for n, t in state.items() if n not in own}, SPELLING))
    for name, tensor in state.items():
        if name in own:
            theirs[own[name]] = tensor[:, :, None, None] if own[name] == PROJECTION else tensor
    return theirs


DIALECT = Dialect(
    name="taming_gumbel",
    recognises=lambda state: (
        "encoder.down.0.block.0.conv1.weight" in state
        and {PROJECTION, "quantize.embed.weight"} <= state.keys()
        and state[PROJECTION].ndim == 4
        and state["quantize.embed.weight"].ndim == 2
    ),
    describe=describe_taming_gumbel,
    translate=_translate,
    write=to_taming_gumbel,
    check=check_taming_gumbel,
    prefixes=("first_stage_model.",),
    ignored=r"loss\..*",
)
"""The weights of taming-transformers' VQGAN with Gumbel-softmax."""
