"""Small networks of every family of teachers, registered in timm, and the layouts of their publishers."""

from functools import partial
from typing import Any

import torch
from timm.layers import QuickGELU
from timm.models import (
    ConvNeXt,
    Eva,
    VisionTransformer,
    build_model_with_cfg,
    generate_default_cfgs,
    register_model,
)
from torch import Tensor, nn

State = dict[str, Tensor]
_COLOURS = {
    "mean": (0.4, 0.5, 0.6),
    "std": (0.2, 0.3, 0.4),
    "input_size": (3, 32, 32),
    "interpolation": "bicubic",
}
_NAMES = (
    "tiny_clip_32",
    "tiny_vit",
    "tiny_scaled_vit",
    "tiny_register_vit",
    "tiny_siglip",
    "tiny_eva02",
    "tiny_eva_giant",
    "tiny_convnext",
)
default_cfgs = generate_default_cfgs({f"{name}.seeded": {**_COLOURS, "num_classes": 16} for name in _NAMES})
PREFIX_TOKENS = {"tiny_siglip": 0, "tiny_convnext": 0, "tiny_register_vit": 5}
"""The number of class and register tokens of a network, as its publisher has it; 1 for the others."""

_SIZES: dict[str, Any] = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2}


def _vit(name: str, arguments: dict[str, Any], **given: Any) -> Any:
    return build_model_with_cfg(VisionTransformer, name, **{**_SIZES, **arguments, **given})


@register_model
def tiny_clip_32(**given: Any) -> Any:
    """CLIP: a norm before the blocks, another epsilon and activation."""
    norm = partial(nn.LayerNorm, eps=1e-5)
    return _vit("tiny_clip_32", {"pre_norm": True, "norm_layer": norm, "act_layer": QuickGELU}, **given)


@register_model
def tiny_vit(**given: Any) -> Any:
    """DINO, MAE and the supervised vision transformer."""
    return _vit("tiny_vit", {}, **given)


@register_model
def tiny_scaled_vit(**given: Any) -> Any:
    """DINOv2."""
    return _vit("tiny_scaled_vit", {"init_values": 0.5}, **given)


@register_model
def tiny_register_vit(**given: Any) -> Any:
    """DINOv2 with registers."""
    return _vit("tiny_register_vit", {"init_values": 0.5, "reg_tokens": 4, "no_embed_class": True}, **given)


@register_model
def tiny_siglip(**given: Any) -> Any:
    """SigLIP: no class token, and pooling by attention."""
    return _vit("tiny_siglip", {"class_token": False, "global_pool": "map"}, **given)


@register_model
def tiny_eva02(**given: Any) -> Any:
    """EVA-02: rotary positions, gated units, and a last norm that timm applies after its pooling."""
    eva02 = {"qkv_fused": False, "swiglu_mlp": True, "use_rot_pos_emb": True, "ref_feat_shape": (4, 4)}
    return build_model_with_cfg(Eva, "tiny_eva02", **{**_SIZES, **eva02, **given})


@register_model
def tiny_eva_giant(**given: Any) -> Any:
    """EVA's giant CLIP model."""
    return build_model_with_cfg(Eva, "tiny_eva_giant", **{**_SIZES, "global_pool": "token", **given})


@register_model
def tiny_convnext(**given: Any) -> Any:
    """ConvNeXt."""
    given.pop("dynamic_img_size", None)  # `vq` leaves it out for the ConvNeXts of timm only
    sizes = {"depths": (1, 1, 2, 1), "dims": (8, 12, 16, 24)}
    return build_model_with_cfg(ConvNeXt, "tiny_convnext", **{**sizes, **given})


def seeded(network: nn.Module, seed: int = 0) -> nn.Module:
    """The network in eval mode with random numbers in all parameters, so that none is without effect."""
    draws = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=draws) * 0.3)
    return network.eval()


def with_identity_blocks(state: State) -> State:
    """The weights, with blocks that add nothing to their input."""
    last = ("attn.proj.weight", "attn.proj.bias", "mlp.fc2.weight", "mlp.fc2.bias")
    return {name: tensor * 0 if name.endswith(last) else tensor for name, tensor in state.items()}


def as_openai(state: State) -> State:
    """The layout of OpenAI's CLIP and of OpenCLIP, with a transformer for texts."""
    found = {"token_embedding.weight": torch.zeros(7, 8), "logit_scale": torch.zeros(())}
    found["transformer.resblocks.0.attn.in_proj_weight"] = torch.zeros(24, 8)
    found["visual.class_embedding"] = state["cls_token"][0, 0]
    found["visual.positional_embedding"] = state["pos_embed"][0]
    found["visual.conv1.weight"] = state["patch_embed.proj.weight"]
    found["visual.proj"] = torch.full((32, 16), 0.1) if "head.weight" not in state else state["head.weight"].T
    for kind in ("weight", "bias"):
        found[f"visual.ln_pre.{kind}"] = state[f"norm_pre.{kind}"]
        found[f"visual.ln_post.{kind}"] = state[f"norm.{kind}"]
        for i in range(2):
            ours, theirs = f"blocks.{i}", f"visual.transformer.resblocks.{i}"
            found[f"{theirs}.ln_1.{kind}"] = state[f"{ours}.norm1.{kind}"]
            found[f"{theirs}.ln_2.{kind}"] = state[f"{ours}.norm2.{kind}"]
            found[f"{theirs}.attn.in_proj_{kind}"] = state[f"{ours}.attn.qkv.{kind}"]
            found[f"{theirs}.attn.out_proj.{kind}"] = state[f"{ours}.attn.proj.{kind}"]
            found[f"{theirs}.mlp.c_fc.{kind}"] = state[f"{ours}.mlp.fc1.{kind}"]
            found[f"{theirs}.mlp.c_proj.{kind}"] = state[f"{ours}.mlp.fc2.{kind}"]
    return found


def as_dino(state: State) -> State:
    """The layout of DINO, which timm took over."""
    return state


def as_mae(state: State) -> dict[str, State]:
    """The layout of MAE's full files, with the decoder that only pretraining needs."""
    decoder = {
        "decoder_pos_embed": torch.zeros(1, 17, 8),
        "decoder_blocks.0.attn.qkv.weight": torch.zeros(24, 8),
    }
    return {"model": {**state, **decoder, "mask_token": torch.zeros(1, 1, 8)}}


def as_dinov2(state: State) -> State:
    """The layout of DINOv2, whose position embeddings include one for the class token."""
    found = {**state, "mask_token": torch.zeros(1, 32)}
    if "reg_token" in found:
        place = torch.linspace(-1, 1, 32).reshape(1, 1, 32)
        found["register_tokens"] = found.pop("reg_token")
        found["pos_embed"] = torch.cat([place, found["pos_embed"]], dim=1)
        found["cls_token"] = found["cls_token"] - place
    return found


def as_openclip_of_timm(state: State) -> State:
    """The layout of OpenCLIP for networks of timm, such as EVA."""
    return {f"visual.trunk.{name}": tensor for name, tensor in state.items()} | {
        "logit_scale": torch.zeros(())
    }
