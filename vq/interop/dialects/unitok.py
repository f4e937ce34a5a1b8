"""UniTok: a ViTamin encoder, eight codebooks on unit spheres, and a decoder that mirrors the encoder."""

import re
from typing import Any

import torch
from torch import Tensor, nn

from vq.interop.dialect import Dialect, InteropError, NamedTensors
from vq.interop.vqgan import check_distance
from vq.networks import ViTaminDecoder, ViTaminEncoder
from vq.networks.sizes import declared_size
from vq.quantizers import ProductQuantizer
from vq.zoo.families.unitok import HEAD_DIM, tokenizer

_END = r"\.(weight|bias)"
_BACKBONE = r"encoder\.patch_embed\.backbone\."
_LEVEL = _BACKBONE + r"stages\.(\d+)\.(\d+)\."
_BLOCK = r"(encoder|decoder)\.blocks\.(\d+)\."
_RENAMED = {
    _BACKBONE + r"stem\.conv1" + _END: r"encoder.stem.0.\1",
    _BACKBONE + r"stem\.norm1" + _END: r"encoder.stem.1.\1",
    _BACKBONE + r"stem\.conv2" + _END: r"encoder.stem.3.\1",
    _LEVEL + r"pre_norm" + _END: r"encoder.levels.\1.\2.norm.\3",
    _LEVEL + r"conv1_1x1" + _END: r"encoder.levels.\1.\2.expand.\3",
    _LEVEL + r"conv2_kxk" + _END: r"encoder.levels.\1.\2.depthwise.\3",
    _LEVEL + r"conv3_1x1" + _END: r"encoder.levels.\1.\2.reduce.\3",
    _LEVEL + r"shortcut\.expand" + _END: r"encoder.levels.\1.\2.shortcut.1.\3",
    _BACKBONE + r"pool\.norm" + _END: r"encoder.pool.0.\1",
    _BACKBONE + r"pool\.proj" + _END: r"encoder.pool.1.\1",
    _BLOCK + r"(norm[12]|mlp\.norm)" + _END: r"\1.blocks.\2.\3.\4",
    _BLOCK + r"attn\.proj" + _END: r"\1.blocks.\2.out.\3",
    _BLOCK + r"mlp\.w0" + _END: r"\1.blocks.\2.mlp.gate.\3",
    _BLOCK + r"mlp\.w1" + _END: r"\1.blocks.\2.mlp.up.\3",
    _BLOCK + r"mlp\.w2" + _END: r"\1.blocks.\2.mlp.down.\3",
    r"(encoder|decoder)\.norm" + _END: r"\1.norm.\2",
    r"(encoder\.head|decoder\.stem)\.(norm[12]|mlp\.norm)" + _END: r"\1.\2.\3",
    r"(encoder\.head|decoder\.stem)\.norm3" + _END: r"\1.shortcut_norm.\2",
    r"(encoder\.head|decoder\.stem)\.proj" + _END: r"\1.shortcut.\2",
    r"(encoder\.head|decoder\.stem)\.attn\.proj" + _END: r"\1.out.\2",
    r"(encoder\.head|decoder\.stem)\.attn\.q_bias": r"\1.query.bias",
    r"(encoder\.head|decoder\.stem)\.attn\.v_bias": r"\1.value.bias",
    r"(encoder\.head|decoder\.stem)\.mlp\.w0" + _END: r"\1.mlp.gate.\2",
    r"(encoder\.head|decoder\.stem)\.mlp\.w1" + _END: r"\1.mlp.up.\2",
    r"(encoder\.head|decoder\.stem)\.mlp\.w2" + _END: r"\1.mlp.down.\2",
    r"quantizer\.codebooks\.(\d+)\.codebook\.weight": r"quantizer.parts.\1.codebook.weight",
    r"decoder\.up_conv1\.conv" + _END: r"decoder.enlarge.1.\1",
    r"decoder\.up_conv4\.conv1\.conv" + _END: r"decoder.head.1.\1",
    r"decoder\.up_conv4\.norm1" + _END: r"decoder.head.2.\1",
    r"decoder\.up_conv4\.conv2" + _END: r"decoder.head.4.\1",
    r"decoder\.levels\.(\d+)\.(\d+)\.pre_norm" + _END: r"decoder.levels.\1.\2.norm.\3",
    r"decoder\.levels\.(\d+)\.(\d+)\.conv1_1x1" + _END: r"decoder.levels.\1.\2.expand.\3",
    r"decoder\.levels\.(\d+)\.(\d+)\.conv2_kxk" + _END: r"decoder.levels.\1.\2.depthwise.\3",
    r"decoder\.levels\.(\d+)\.(\d+)\.conv3_1x1" + _END: r"decoder.levels.\1.\2.reduce.\3",
    r"decoder\.levels\.(\d+)\.(\d+)\.up\.conv" + _END: r"decoder.levels.\1.\2.enlarge.1.\3",
    r"decoder\.levels\.(\d+)\.(\d+)\.shortcut\.conv" + _END: r"decoder.levels.\1.\2.shortcut.1.\3",
}
_PARTS = {"quant_proj.": "encoder.head.", "post_quant_proj.": "decoder.stem."}
_PARTS |= {"decoder.up_conv2.": "decoder.levels.0.", "decoder.up_conv3.": "decoder.levels.1."}
_QKV = re.compile(r"(.*)\.attn\.qkv\.(weight|bias)")
_CODES = re.compile(r"quantizer\.codebooks\.\d+\.codebook\.weight")
_POSITION, _POOL = "encoder.pos_embed", "encoder.pool.1.bias"


def describe_unitok(state: NamedTensors) -> dict[str, Any]:
    """Returns the config of a UniTok tokenizer.

    Args:
        state: The content of `trainer`, `unitok` in the checkpoint.

    Raises:
        InteropError: If a tensor that tells a size is missing.
    """
    stages = "encoder.patch_embed.backbone.stages"
    levels = _count(state, f"{stages}.{{}}.0.conv3_1x1.weight")
    codebooks = [state[name].shape for name in state if _CODES.fullmatch(name)]
    if levels != 2 or "encoder.norm.weight" not in state or any(len(shape) != 2 for shape in codebooks):
        raise InteropError(
            f"unitok weights: expected the two levels of convolutions of ViTamin, the tensor encoder.norm.weight, and "
            f"codebooks with two axes, got {levels} levels and codebooks of the shapes {list(map(tuple, codebooks))}; "
            "check which project wrote the weights"
        )
    section = tokenizer(
        widths=[len(state[f"{stages}.{level}.0.conv3_1x1.weight"]) for level in range(levels)],
        depths=[_count(state, f"{stages}.{level}.{{}}.conv3_1x1.weight") for level in range(levels)],
        width=len(state["encoder.norm.weight"]),
        depth=_count(state, "encoder.blocks.{}.norm1.weight"),
        codebooks=[(size, dim) for size, dim in codebooks],
    )
    return {"tokenizer": section}


def check_unitok(model: nn.Module) -> None:
    """Refuses networks and quantizers in which the weights of UniTok would compute something else.

    Args:
        model: The tokenizer that is to get the weights.

    Raises:
        InteropError: If the quantizer, its distances or the number of attention heads differ.
    """
    quantizer = getattr(model, "quantizer", None)
    if not isinstance(quantizer, ProductQuantizer):
        raise InteropError(
            f"unitok weights: expected a tokenizer with a ProductQuantizer, got {type(quantizer).__name__}; use a "
            "config with one"
        )
    for part in quantizer.parts:
        check_distance(nn.ModuleDict({"quantizer": part}), "unitok", "CosineDistance")
    for network in (getattr(model, "encoder", None), getattr(model, "decoder", None)):
        if isinstance(network, ViTaminEncoder | ViTaminDecoder):
            width = network.norm.normalized_shape[0]
            heads = declared_size(network.blocks[0], "num_heads")
            if heads * HEAD_DIM != width:
                raise InteropError(
                    f"unitok weights: expected {width // HEAD_DIM} attention heads for {width} channels, got {heads}; "
                    "the weights would load, but compute something else"
                )


def _translate(state: NamedTensors) -> NamedTensors:
    ours: dict[str, Tensor] = {}
    leftover = []
    for name, tensor in state.items():
        moved = next(
            (new + name.removeprefix(old) for old, new in _PARTS.items() if name.startswith(old)), name
        )
        if match := _QKV.fullmatch(moved):
            for part, own in zip(("query", "key", "value"), tensor.tensor_split(3), strict=True):
                if (part, match[2]) != ("key", "bias"):  # it adds the same to all scores of a query
                    ours[f"{match[1]}.{part}.{match[2]}"] = own
        elif renamed := _renamed(moved):
            ours[renamed] = tensor
        elif name != _POSITION:
            leftover.append(name)
    if leftover:
        raise InteropError(
            f"unitok weights: expected the tensors of UniTok, got {len(leftover)} with no counterpart "
            f"({', '.join(leftover[:6])}{', ...' if len(leftover) > 6 else ''}); check which project wrote the weights"
        )
    if _POSITION in state and _POOL in ours:  # one vector for all positions, which a bias can hold
        ours[_POOL] = ours[_POOL] + state[_POSITION].flatten()
    parts = [name for name in ours if name.startswith("quantizer.parts.")]
    marks = {name.replace("weight", "initialised"): torch.tensor(1, dtype=torch.uint8) for name in parts}
    return ours | marks


def _renamed(name: str) -> str | None:
    for pattern, ours in _RENAMED.items():
        if match := re.fullmatch(pattern, name):
            return match.expand(ours)
    return None


def _count(state: NamedTensors, numbered: str) -> int:
    count = 0
    while numbered.format(count) in state:
        count += 1
    return count


DIALECT = Dialect(
    name="unitok",
    recognises=lambda state: (
        "quantizer.codebooks.0.codebook.weight" in state and "quant_proj.attn.qkv.weight" in state
    ),
    describe=describe_unitok,
    translate=_translate,
    check=check_unitok,
    # The text side of its training and statistics of the codes; a bias of the keys has no effect.
    ignored=(
        r"(text_encoder|fc_norm|projection)\..*|logit_scale|quantizer\.codebooks\.\d+\.vocab_usage"
        r"|(post_)?quant_proj\.attn\.zero_k_bias"
    ),
)
"""The weights of UniTok."""
