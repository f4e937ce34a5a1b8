"""The tokenizer of BEiT v2 (VQ-KD): a vision transformer, codes of length 1, and a shallow decoder of features."""

import math
import re
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Shaped
from torch import Tensor, nn

from vq.interop.dialect import Dialect, InteropError, NamedTensors
from vq.interop.spelling import CODEBOOK, INITIALISED
from vq.interop.vqgan import check_distance
from vq.layers import PixelPatches, SoftmaxAttention
from vq.networks import ViTDecoder, ViTEncoder
from vq.networks.sizes import declared_size

HEAD_DIM = 64
"""The channels of an attention head in all published models. They cannot be read from the weights."""
POSITION_OFFSET = 0.1
"""What BEiT v2 adds to the rows and columns of a grid to which it interpolates the position embeddings."""
DECAY = 0.99
"""The decay of the codes in the published training."""

_BLOCK = r"(encoder|decoder)\.blocks\.(\d+)\."
_RENAMED = {
    r"(encoder|decoder)\.patch_embed\.proj\.bias": r"\1.embed.bias",
    _BLOCK + r"(norm[12])\.(weight|bias)": r"\1.transformer.blocks.\2.\3.\4",
    _BLOCK + r"attn\.q_bias": r"\1.transformer.blocks.\2.query.bias",
    _BLOCK + r"attn\.v_bias": r"\1.transformer.blocks.\2.value.bias",
    _BLOCK + r"attn\.proj\.(weight|bias)": r"\1.transformer.blocks.\2.out.\3",
    _BLOCK + r"mlp\.fc1\.(weight|bias)": r"\1.transformer.blocks.\2.up.\3",
    _BLOCK + r"mlp\.fc2\.(weight|bias)": r"\1.transformer.blocks.\2.down.\3",
    r"(encoder|decoder)\.fc_norm\.(weight|bias)": r"\1.transformer.norm.\2",
    r"(encode|decode)_task_layer\.([02])\.(weight|bias)": r"\1r.head.\2.\3",
    r"quantize\.embedding\.weight": CODEBOOK,
    r"quantize\.cluster_size": "quantizer.codebook.usage",
}
_DIMENSIONS = {
    r"(encoder|decoder)\.patch_embed\.proj\.weight": 4,
    r"(encoder|decoder)\.(cls_token|pos_embed)": 3,
    _BLOCK + r"(attn\.qkv|mlp\.fc1)\.weight": 2,
    r"decode_task_layer\.2\.weight": 2,
    r"quantize\.embedding\.weight": 2,
}
"""The numbers of axes of the tensors whose shapes are read or changed before all shapes are compared."""
_QKV = re.compile(_BLOCK + r"attn\.qkv\.weight")
_PATCHES = re.compile(r"(encoder|decoder)\.patch_embed\.proj\.weight")


def from_beitv2(state: NamedTensors) -> NamedTensors:
    """Converts the names and shapes of the tensors of BEiT v2's `VQKD` to those of a `FeatureTokenizer`.

    The joint matrix of queries, keys and values becomes three, the convolution over patches becomes a linear layer,
    and the extra token is the sum of the class token and its position embedding. The teacher, its normalization and
    the averages that the quantizer does not use are dropped.

    Args:
        state: The content of `model` in the checkpoint.

    Returns:
        A state dict for the tokenizer that `describe_beitv2` describes with `with_decoder=True`.

    Raises:
        InteropError: If a name has no counterpart, the position embeddings are not those of a square grid, or the
            codes do not have length 1, as before their initialization.
    """
    return DIALECT.read(state)


def _translate(state: NamedTensors) -> NamedTensors:
    _check_dimensions(state)
    kept = dict(state)
    ours: dict[str, Tensor] = {}
    for side in ("encoder", "decoder"):
        if f"{side}.cls_token" in kept and f"{side}.pos_embed" in kept:
            ours |= _tokens(side, kept.pop(f"{side}.cls_token"), kept.pop(f"{side}.pos_embed"))
    leftover = []
    for name, tensor in kept.items():
        if match := _QKV.fullmatch(name):
            block = f"{match[1]}.transformer.blocks.{match[2]}"
            for part, matrix in zip(("query", "key", "value"), tensor.tensor_split(3), strict=True):
                ours[f"{block}.{part}.weight"] = matrix
        elif match := _PATCHES.fullmatch(name):
            ours[f"{match[1]}.embed.weight"] = rearrange(tensor, "d c p q -> d (p q c)")
        elif renamed := _renamed(name):
            ours[renamed] = tensor
        else:
            leftover.append(name)
    if leftover:
        raise InteropError(
            f"beitv2 weights: expected the tensors of BEiT v2's VQ-KD, got {len(leftover)} with no counterpart "
            f"({', '.join(leftover[:6])}{', ...' if len(leftover) > 6 else ''}); check which project wrote the weights"
        )
    if CODEBOOK in ours and not ours[CODEBOOK].is_meta:
        _check_lengths(ours[CODEBOOK])
    return ours | {INITIALISED: torch.tensor(1, dtype=torch.uint8)}


def describe_beitv2(state: NamedTensors, *, with_decoder: bool) -> dict[str, Any]:
    """Describes the tokenizer that has the weights of BEiT v2's `VQKD`, as the `tokenizer` section of a config.

    That of the published tokenizer of CLIP is the section of configs/vqkd/clip_8192_imagenet_ddp.py.

    Args:
        state: The content of `model` in the checkpoint.
        with_decoder: Whether the tokenizer has the decoder, which predicts the teacher's features.

    Raises:
        InteropError: If the tensors are not those of a `VQKD`.
    """
    sides = ("encoder", "decoder") if with_decoder else ("encoder",)
    needed = ["quantize.embedding.weight"]
    for side in sides:
        needed += [f"{side}.{name}" for name in ("patch_embed.proj.weight", "pos_embed", "cls_token")]
        needed += [f"{side}.blocks.0.mlp.fc1.weight", f"{side[:-1]}_task_layer.2.weight"]
    if missing := [name for name in needed if name not in state]:
        decoder = (
            ", and whether they have the decoder that with_decoder:True asks for" if with_decoder else ""
        )
        raise InteropError(
            f"beitv2 weights: expected the tensors of BEiT v2's VQ-KD, got none named {', '.join(missing[:6])}, but "
            f"{', '.join(list(state)[:6]) or 'no tensor'}; check which project wrote the weights{decoder}"
        )
    _check_dimensions(state)
    size, dim = state["quantize.embedding.weight"].shape
    codebook = {
        "type": "vq.quantizers.SphericalEMACodebook",
        "size": size,
        "dim": dim,
        "decay": DECAY,
        "init": {"type": "vq.quantizers.KMeansInit"},
    }
    section = {
        "type": "vq.tokenizers.FeatureTokenizer",
        "encoder": _describe_network(state, "encoder") | {"out_channels": dim},
        "quantizer": {
            "type": "vq.quantizers.VectorQuantizer",
            "codebook": codebook,
            "distance": {"type": "vq.quantizers.CosineDistance"},
            "commitment_weight": 1.0,
        },
    }
    if with_decoder:
        section["decoder"] = _describe_network(state, "decoder") | {"in_channels": dim}
    return section


def check_beitv2(tokenizer: nn.Module) -> None:
    """Refuses transformers whose parameters have the same names and shapes, but which compute something else.

    Args:
        tokenizer: The tokenizer that is to get the weights of a `VQKD`.

    Raises:
        InteropError: If the distance, the patches, the attention or the number of heads differ.
    """
    check_distance(tokenizer, "beitv2", "CosineDistance")
    for name, module in tokenizer.named_modules():
        if not isinstance(module, ViTEncoder | ViTDecoder):
            continue
        transformer = module.transformer
        attention = transformer.attention
        heads = declared_size(transformer.blocks[0], "num_heads")
        is_same = (
            type(module.patches) is PixelPatches
            and isinstance(attention, SoftmaxAttention)
            and not attention.causal
            and heads * HEAD_DIM == transformer.width
        )
        if not is_same:
            raise InteropError(
                f"beitv2 weights: expected PixelPatches, SoftmaxAttention() and {transformer.width // HEAD_DIM} heads "
                f"in the {name}, got {type(module.patches).__name__}, {type(attention).__name__}"
                f"{'(causal=True)' if getattr(attention, 'causal', False) else ''} and {heads}; the weights would "
                "load, but compute something else"
            )


def _describe_network(state: NamedTensors, side: str) -> dict[str, Any]:
    width, _, patch, _ = state[f"{side}.patch_embed.proj.weight"].shape
    if width % HEAD_DIM:
        raise InteropError(
            f"beitv2 weights: expected the {side} to have attention heads of {HEAD_DIM} channels, got {width} channels "
            "in all; only models with such heads can be converted"
        )
    grid = _side_of_grid(f"{side}.pos_embed", state[f"{side}.pos_embed"])
    depth = 0
    while f"{side}.blocks.{depth}.norm1.weight" in state:
        depth += 1
    mlp_ratio = len(state[f"{side}.blocks.0.mlp.fc1.weight"]) / width
    patches: dict[str, Any] = {"type": "vq.layers.PixelPatches", "size": patch}
    if side == "decoder":
        patches["channels"] = len(state["decode_task_layer.2.weight"])
    return {
        "type": "vq.networks.ViTEncoder" if side == "encoder" else "vq.networks.ViTDecoder",
        "patches": patches,
        "transformer": {
            "type": "vq.layers.Transformer",
            "width": width,
            "depth": depth,
            "num_heads": width // HEAD_DIM,
            **({} if mlp_ratio == 4 else {"mlp_ratio": mlp_ratio}),
            "positions": {
                "type": "vq.layers.LearnedPositions",
                "width": width,
                "grid": [grid, grid],
                "offset": POSITION_OFFSET,
            },
        },
        "num_extra_tokens": 1,
    }


def _tokens(
    side: str, token: Shaped[Tensor, "_ _ _"], positions: Shaped[Tensor, "_ _ _"]
) -> dict[str, Tensor]:
    """Our tensors of the class token, whose position embedding is added to it, and of the other positions."""
    rows = _side_of_grid(f"{side}.pos_embed", positions)
    if token.shape != (1, 1, positions.shape[2]) or len(positions) != 1:
        raise InteropError(
            f"beitv2 weights: expected {side}.cls_token of shape (1, 1, width) and {side}.pos_embed of shape "
            f"(1, n, width), got {tuple(token.shape)} and {tuple(positions.shape)}; the file is damaged"
        )
    return {
        f"{side}.extra": token[0] + positions[:, 0],
        f"{side}.transformer.positions.vectors": rearrange(positions[0, 1:], "(h w) c -> c h w", h=rows),
    }


def _check_dimensions(state: NamedTensors) -> None:
    for name, tensor in state.items():
        for pattern, wanted in _DIMENSIONS.items():
            if re.fullmatch(pattern, name) and (tensor.ndim != wanted or not tensor.numel()):
                raise InteropError(
                    f"beitv2 weights: expected {name} to have {wanted} axes and at least one number, got the shape "
                    f"{tuple(tensor.shape)}; the file is damaged, or of another project"
                )


def _side_of_grid(name: str, positions: Shaped[Tensor, "_ n _"]) -> int:
    count = positions.shape[1] - 1
    if math.isqrt(count) ** 2 != count:
        raise InteropError(
            f"beitv2 weights: expected {name} to have a position for a class token and for each patch of a square "
            f"grid, got {count + 1} positions; check which project wrote the weights"
        )
    return math.isqrt(count)


def _renamed(name: str) -> str | None:
    for pattern, ours in _RENAMED.items():
        if match := re.fullmatch(pattern, name):
            return match.expand(ours)
    return None


def _check_lengths(codes: Shaped[Tensor, "size dim"]) -> None:
    lengths = torch.linalg.vector_norm(codes.float(), dim=1)
    if not bool(((lengths - 1).abs() < 0.01).all()):  # half precision rounds them by less
        raise InteropError(
            f"beitv2 weights: expected codes of length 1, got lengths from {lengths.min():.3g} to "
            f"{lengths.max():.3g}; the file was written before the codes were initialised, or is of another project"
        )


def _recognises(state: NamedTensors) -> bool:
    return "encode_task_layer.2.weight" in state and "quantize.embedding.weight" in state


DIALECT = Dialect(
    name="beitv2",
    recognises=_recognises,
    describe=lambda state, with_decoder: {"tokenizer": describe_beitv2(state, with_decoder=with_decoder)},
    translate=_translate,
    check=check_beitv2,
    # The teacher and its normalization, and averages that the quantizer stores but does not use.
    ignored=r"(loss|teacher_model|scaling_layer)\..*|quantize\.embedding\.(cluster_size|embed_avg|initted)",
    options={"with_decoder": False},
)
"""The weights of BEiT v2's tokenizers."""
