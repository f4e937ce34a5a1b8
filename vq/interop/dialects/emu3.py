"""The tokenizer of Emu3, for single images: its convolutions over time become convolutions over height and width."""

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Shaped
from torch import Tensor

from vq.interop.dialect import Dialect, InteropError, NamedTensors
from vq.interop.dialects.taming import SPELLING as TAMING
from vq.interop.spelling import INITIALISED, pairs, plan_of
from vq.interop.vqgan import check_vqgan, codebook_shape, describe_networks
from vq.zoo.families.emu3 import tokenizer

SPELLING = replace(TAMING, project="emu3")
BATCH_NORM_EPS = 1e-5
"""What torch's batch norm adds to the variances; the weights do not show it."""

_IN_TRANSFORMERS = {
    r"\.(?:down|up)_block\.": ".",
    r"\.middle_block\.attn_norm\.": ".mid.attn_1.norm.",
    r"\.middle_block\.": ".mid.",
    r"\.attn_norms\.(\d+)\.": r".attn.\1.norm.",
    r"(attn[._]\d+)\.([qkv])_proj\.": r"\1.\2.",
    r"(attn[._]\d+)\.out_proj\.": r"\1.proj_out.",
}
"""What differs between the names of transformers and those of the project."""
_NORM = re.compile(r"(decoder\..*norm\w*)\.(norm_layer|conv_y|conv_b)\.(weight|bias)")
_NORM_PARTS = {"norm_layer": "norm", "conv_y": "scale", "conv_b": "shift"}
_STATISTICS = ("weight", "bias", "running_mean", "running_var")
_BATCH_NORM = re.compile(r"(encoder|decoder)\.time_res_stack\.(\d+)\.norm([12])\.weight")


def _last(weight: Shaped[Tensor, "o i t h w"]) -> Shaped[Tensor, "o i h w"]:
    """What a convolution over time does with a frame after zeros."""
    return weight[:, :, -1]


def _spread(weight: Shaped[Tensor, "c c 4 3 3"]) -> Shaped[Tensor, "2*c c 3 3"]:
    """What the first halving does with four equal frames after two frames of zeros."""
    return torch.cat([weight[:, :, 2:].sum(2), weight.sum(2)])


def _merge(weight: Shaped[Tensor, "c c 4 3 3"]) -> Shaped[Tensor, "c 2*c 3 3"]:
    """What the second halving does with two frames after two frames of zeros."""
    return torch.cat([weight[:, :, 2], weight[:, :, 3]], dim=1)


_Change = Callable[[Tensor], Tensor]
_OVER_TIME: Mapping[str, tuple[str, int, _Change]] = {
    r"encoder\.time_conv\.0\.conv\.conv": ("encoder.spread", 4, _spread),
    r"encoder\.time_conv\.1\.conv\.conv": ("encoder.merge", 4, _merge),
    r"quant_conv\.conv": ("encoder.head", 3, _last),
    r"post_quant_conv\.conv": ("decoder.project", 3, _last),
    r"decoder\.time_conv\.(\d+)\.conv\.conv": (r"decoder.frame.\1", 3, _last),
    r"(encoder|decoder)\.time_res_stack\.(\d+)\.(conv[12])\.conv": (r"\1.blocks.\2.\3", 3, _last),
}
"""Their names of the convolutions over time -> our name, the length of the kernel, what becomes of it."""


def _named_as_published(state: NamedTensors) -> NamedTensors:
    """The names of the project for those of transformers, whose attention has matrices instead of convolutions."""
    named = {}
    for name, tensor in state.items():
        is_matrix = name.endswith("_proj.weight") and tensor.ndim == 2
        for old, new in _IN_TRANSFORMERS.items():
            name = re.sub(old, new, name)  # noqa: PLW2901
        named[name] = tensor[..., None, None] if is_matrix else tensor
    return named


def _describe(state: NamedTensors) -> dict[str, Any]:
    state = _named_as_published(state)
    size, dim = codebook_shape(state, "quantize.embedding.weight", "emu3")
    found = describe_networks(state, SPELLING)
    sizes = {key: found[key] for key in ("multipliers", "width", "num_blocks")}
    return {"tokenizer": tokenizer(codes=size, dim=dim, **sizes)}


def _translate(state: NamedTensors) -> NamedTensors:
    kept = dict(_named_as_published(state))
    table = dict(pairs(SPELLING, plan_of(kept, SPELLING)))
    ours = _scales(kept)
    leftover = []
    for name, tensor in kept.items():
        if found := _for_one_frame(name, tensor):
            ours |= found
        elif renamed := _renamed(name, table):
            ours[renamed] = tensor
        else:
            leftover.append(name)
    if leftover:
        raise InteropError(
            f"emu3 weights: expected the tensors of Emu3's tokenizer, got {len(leftover)} with no counterpart "
            f"({', '.join(leftover[:6])}{', ...' if len(leftover) > 6 else ''}); check which project wrote the weights"
        )
    return ours | {INITIALISED: torch.tensor(1, dtype=torch.uint8)}


def _scales(kept: dict[str, Tensor]) -> dict[str, Tensor]:
    """Takes the batch norms out of `kept`, and returns their scales and shifts with fixed statistics."""
    ours: dict[str, Tensor] = {}
    for match in [match for name in kept if (match := _BATCH_NORM.fullmatch(name))]:
        theirs = match[0].removesuffix("weight")
        names = [f"{theirs}{part}" for part in _STATISTICS]
        if all(name in kept and kept[name].shape == kept[match[0]].shape[:1] for name in names):
            weight, bias, mean, variance = (kept.pop(name) for name in names)
            scale = weight / (variance + BATCH_NORM_EPS).sqrt()
            own = f"{match[1]}.blocks.{match[2]}.scale{match[3]}"
            ours |= {f"{own}.weight": scale[:, None, None, None], f"{own}.bias": bias - mean * scale}
    return ours


def _for_one_frame(name: str, tensor: Shaped[Tensor, "..."]) -> dict[str, Tensor]:
    """Our name and tensor of a convolution over time; nothing for other tensors."""
    layer, _, part = name.rpartition(".")
    for theirs, (ours, length, change) in _OVER_TIME.items():
        if not (match := re.fullmatch(theirs, layer)):
            continue
        own = f"{match.expand(ours)}.{part}"
        if part != "weight":
            return {own: torch.cat([tensor, tensor]) if change is _spread else tensor}
        if tensor.ndim != 5 or tensor.shape[2] != length:
            raise InteropError(
                f"emu3 weights: expected {name} to be a kernel over {length} frames, got the shape "
                f"{tuple(tensor.shape)}; check which project wrote the weights"
            )
        return {own: change(tensor)}
    return {}


def _renamed(name: str, table: Mapping[str, str]) -> str | None:
    """Our name of a tensor of the networks of VQGAN, whose norms have several parts in the decoder."""
    if match := _NORM.fullmatch(name):
        own = table.get(f"{match[1]}.{match[3]}")
        return own and f"{own.removesuffix(match[3])}{_NORM_PARTS[match[2]]}.{match[3]}"
    own = table.get(name)
    return own and re.sub(r"^encoder\.", "encoder.network.", own)


DIALECT = Dialect(
    name="emu3",
    recognises=lambda state: (
        {
            "encoder.time_conv.0.conv.conv.weight",
            "decoder.norm_out.conv_y.weight",
            "quantize.embedding.weight",
        }
        <= state.keys()
    ),
    describe=_describe,
    translate=_translate,
    check=lambda model: check_vqgan(model, "emu3", "EuclideanDistance"),
    prefixes=("model.vqmodel.", "vqmodel."),  # in the files of whole models
    ignored=r".*\.num_batches_tracked",
)
"""The weights of Emu3's tokenizer, with the project's names or those of transformers."""
