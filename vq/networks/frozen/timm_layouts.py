"""The names of tensors in published files of vision transformers and ConvNeXts, translated to the names of timm."""

import inspect
import re
from collections.abc import Mapping
from typing import Any

from jaxtyping import Shaped
from torch import Tensor

# torchvision's names, and those of timm. `linear_1` and `linear_2` are in files that torchvision published before 0.12.
_VIT = (
    (r"^class_token$", "cls_token"),
    (r"^conv_proj\.", "patch_embed.proj."),
    (r"^encoder\.pos_embedding$", "pos_embed"),
    (r"^encoder\.layers\.encoder_layer_(\d+)\.", r"blocks.\1."),
    (r"\.ln_([12])\.", r".norm\1."),
    (r"\.self_attention\.in_proj_", ".attn.qkv."),
    (r"\.self_attention\.out_proj\.", ".attn.proj."),
    (r"\.mlp\.(?:0|linear_1)\.", ".mlp.fc1."),
    (r"\.mlp\.(?:3|linear_2)\.", ".mlp.fc2."),
    (r"^encoder\.ln\.", "norm."),
    (r"^heads\.head\.", "head."),
)
_CONVNEXT = (
    (r"^features\.0\.", "stem."),
    (r"\.block\.0\.", ".conv_dw."),
    (r"\.block\.2\.", ".norm."),
    (r"\.block\.3\.", ".mlp.fc1."),
    (r"\.block\.5\.", ".mlp.fc2."),
    (r"\.layer_scale$", ".gamma"),
    (r"^classifier\.", "head."),
)
_ONLY_FOR_PRETRAINING = re.compile(r"mask_token$|decoder_|lm_head\.|head_dist\.")


def is_of_torchvision(found: Mapping[str, Shaped[Tensor, "..."]]) -> bool:
    """Whether a file has the names of torchvision's vision transformers or ConvNeXts."""
    return "conv_proj.weight" in found or "features.0.0.weight" in found


def to_timm(found: Mapping[str, Shaped[Tensor, "..."]], network: Any) -> dict[str, Shaped[Tensor, "..."]]:
    """Returns the tensors of a file under timm's names, without those that only pretraining used.

    The layouts of torchvision are translated here, and those of OpenAI's CLIP, OpenCLIP, DINO, DINOv2, MAE and EVA by
    timm. Tensors that timm would resize are refused, because they belong to a network with other patches or images.

    Args:
        found: The tensors of the file.
        network: The network of timm that they are for.

    Raises:
        ValueError: If timm cannot translate the names, or a tensor belongs to another size of patches or images.
    """
    if is_of_torchvision(found):
        named = {_renamed(name): tensor for name, tensor in found.items()}
        return {name: t.flatten() if name.endswith(".gamma") else t for name, t in named.items()}
    translate = getattr(inspect.getmodule(type(network)), "checkpoint_filter_fn", None)
    if translate is None:
        return dict(found)
    try:
        named = translate(dict(found), network)
    except Exception as error:  # timm fails in many ways on names that it does not expect
        raise ValueError(f"timm cannot translate its names ({type(error).__name__}: {error})") from error
    originals = {tensor.untyped_storage().data_ptr() for tensor in found.values()}
    for name in ("patch_embed.proj.weight", "pos_embed"):
        if name in named and named[name].untyped_storage().data_ptr() not in originals:
            raise ValueError(f"its {name!r} is for another size of patches or images")
    return {name: tensor for name, tensor in named.items() if not _ONLY_FOR_PRETRAINING.match(name)}


def _renamed(name: str) -> str:
    """The name in timm of a tensor of torchvision."""
    if not name.startswith(("features.", "classifier.")):
        return _replaced(name, _VIT)
    # torchvision numbers the four stages 1, 3, 5 and 7, and the three downsampling layers 2, 4 and 6.
    part = re.match(r"features\.([1-7])\.(\d+)\.", name)
    if part is not None:
        number, inner = int(part[1]), part[2]
        kind = "blocks" if number % 2 else "downsample"
        name = f"stages.{number // 2}.{kind}.{inner}.{name[part.end() :]}"
    return _replaced(name, _CONVNEXT)


def _replaced(name: str, rules: tuple[tuple[str, str], ...]) -> str:
    for pattern, new in rules:
        name = re.sub(pattern, new, name)
    return name
