"""The tokenizers of TiTok, of two stages (L-32, B-64, S-128) and of one (BL-64, BL-128, SL-256)."""

import math
import re
from collections.abc import Mapping
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Shaped
from torch import Tensor, nn

from vq.interop.dialect import Dialect, InteropError, NamedTensors
from vq.interop.dialects.maskgit import describe_decoder, network_names
from vq.interop.spelling import CODEBOOK, INITIALISED
from vq.interop.vqgan import check_vqgan
from vq.layers import PixelPatches, SoftmaxAttention, Transformer
from vq.layers.patches import Patches
from vq.networks import TiTokCodeDecoder, TiTokEncoder
from vq.networks.sizes import declared_size
from vq.networks.transformers.titok import NORM_EPS
from vq.zoo.families.titok import HEAD_DIM, titok

_BLOCK = r"(encoder|decoder)\.transformer\.(\d+)\."
_RENAMED = {
    r"encoder\.patch_embed\.bias": "encoder.embed.bias",
    r"encoder\.conv_out\.bias": "encoder.head.bias",
    r"(encoder|decoder)\.ln_pre\.(weight|bias)": r"\1.pre_norm.\2",
    r"(encoder|decoder)\.ln_post\.(weight|bias)": r"\1.transformer.norm.\2",
    _BLOCK + r"ln_([12])\.(weight|bias)": r"\1.transformer.blocks.\2.norm\3.\4",
    _BLOCK + r"attn\.out_proj\.(weight|bias)": r"\1.transformer.blocks.\2.out.\3",
    _BLOCK + r"mlp\.c_fc\.(weight|bias)": r"\1.transformer.blocks.\2.up.\3",
    _BLOCK + r"mlp\.c_proj\.(weight|bias)": r"\1.transformer.blocks.\2.down.\3",
    r"decoder\.decoder_embed\.(weight|bias)": r"decoder.embed.\1",
    r"decoder\.latent_token_positional_embedding": "decoder.latent_places",
    r"decoder\.conv_out\.(weight|bias)": r"decoder.smooth.\1",
    r"pixel_quantize\.embedding\.weight": "decoder.codes",
    r"quantize\.embedding\.weight": CODEBOOK,
}
_IN_PROJ = re.compile(_BLOCK + r"attn\.in_proj_(weight|bias)")
_FFN = re.compile(r"decoder\.ffn\.([02])\.(weight|bias)")
_SUMMED = {
    "latent_tokens": 2,
    "encoder.class_embedding": 2,
    "encoder.positional_embedding": 2,
    "encoder.latent_token_positional_embedding": 2,
    "decoder.class_embedding": 2,
    "decoder.positional_embedding": 2,
    "decoder.mask_token": 3,
}
"""The numbers of axes of the vectors that are used as sums of two."""
_AXES = {
    **_SUMMED,
    "encoder.patch_embed.weight": 4,
    "encoder.conv_out.weight": 4,
    "decoder.ffn.0.weight": 4,
    "quantize.embedding.weight": 2,
}
"""The numbers of axes of the tensors whose shapes are read or changed; every model has them."""


def _describe(state: NamedTensors) -> dict[str, Any]:
    _check_axes(state)
    codes, dim = state["quantize.embedding.weight"].shape
    num_latents = state["latent_tokens"].shape[0]
    patch_size = state["encoder.patch_embed.weight"].shape[2]
    two_stage = None
    if "decoder.ffn.2.weight" in state:
        pixels = _pixel_decoder(state)
        if not pixels or "pixel_quantize.embedding.weight" not in state:
            raise InteropError(
                "titok weights: expected a decoder of pixels, got only that of proxy codes, as after the first of two "
                "stages; use the weights of the second stage"
            )
        section = describe_decoder(pixels)
        two_stage = {"num_codes": len(state["pixel_quantize.embedding.weight"]), "decoder": section}
    section = titok(
        encoder=_transformer(state, "encoder"),
        decoder=_transformer(state, "decoder"),
        codes=codes,
        dim=dim,
        num_latents=num_latents,
        image_size=patch_size * _side(state["encoder.positional_embedding"]),
        patch_size=patch_size,
        two_stage=two_stage,
    )
    return {"tokenizer": section}


def _translate(state: NamedTensors) -> NamedTensors:
    _check_axes(state)
    pixels = dict(network_names(_pixel_decoder(state), "decoder"))
    is_two_stage = "decoder.ffn.2.weight" in state
    ours = _sums(state)
    leftover = []
    for name, tensor in state.items():
        if name in _SUMMED:
            continue
        if tensor.ndim and (match := _IN_PROJ.fullmatch(name)):
            ours |= _attention(match, tensor)
        elif name == "encoder.patch_embed.weight":
            ours["encoder.embed.weight"] = rearrange(tensor, "d c p q -> d (p q c)")
        elif name == "encoder.conv_out.weight":
            ours["encoder.head.weight"] = tensor.flatten(1)
        elif match := _FFN.fullmatch(name):
            ours[f"decoder.head.{match[1]}.{match[2]}" if is_two_stage else f"decoder.head.{match[2]}"] = (
                tensor.flatten(1) if tensor.ndim == 4 else tensor
            )
        elif renamed := _renamed(name, pixels):
            ours[renamed] = tensor
        else:
            leftover.append(name)
    if leftover:
        raise InteropError(
            f"titok weights: expected the tensors of TiTok, got {len(leftover)} with no counterpart "
            f"({', '.join(leftover[:6])}{', ...' if len(leftover) > 6 else ''}); check which project wrote the weights"
        )
    return ours | {INITIALISED: torch.tensor(1, dtype=torch.uint8)}


def _sums(state: NamedTensors) -> dict[str, Tensor]:
    """Our vectors that are sums of two of theirs, mostly of a token and its position."""
    sums = {
        "encoder.latents": state["latent_tokens"] + state["encoder.latent_token_positional_embedding"],
        "encoder.places": state["encoder.positional_embedding"][1:],
        "decoder.queries": state["decoder.mask_token"][0] + state["decoder.positional_embedding"][1:],
    }
    for side in ("encoder", "decoder"):
        first = state[f"{side}.positional_embedding"][:1]
        sums[f"{side}.class_token"] = state[f"{side}.class_embedding"] + first
    return sums


def _attention(match: re.Match[str], tensor: Shaped[Tensor, "_ *width"]) -> dict[str, Tensor]:
    """The three parts of a joint matrix or bias; a bias of keys adds the same to all scores of a query."""
    block = f"{match[1]}.transformer.blocks.{match[2]}"
    parts = zip(("query", "key", "value"), tensor.tensor_split(3), strict=True)
    kept = {f"{block}.{part}.{match[3]}": own for part, own in parts}
    kept.pop(f"{block}.key.bias", None)
    return kept


def _renamed(name: str, pixels: Mapping[str, str]) -> str | None:
    if name.startswith("pixel_decoder."):
        found = pixels.get(name.removeprefix("pixel_"))
        return found and f"decoder.{found}"
    for pattern, ours in _RENAMED.items():
        if match := re.fullmatch(pattern, name):
            return match.expand(ours)
    return None


def _pixel_decoder(state: NamedTensors) -> NamedTensors:
    """The tensors of MaskGIT's decoder in a model of two stages, by the names that they have in MaskGIT's file."""
    prefix = "pixel_decoder."
    return {f"decoder.{n.removeprefix(prefix)}": t for n, t in state.items() if n.startswith(prefix)}


def _transformer(state: NamedTensors, side: str) -> tuple[int, int]:
    """The width and depth of a transformer."""
    width, depth = state[f"{side}.class_embedding"].shape[1], 0
    while f"{side}.transformer.{depth}.ln_1.weight" in state:
        depth += 1
    if width % HEAD_DIM or not depth:
        raise InteropError(
            f"titok weights: expected the {side} to have blocks with attention heads of {HEAD_DIM} channels, got "
            f"{depth} blocks of {width} channels; only models with such heads can be converted"
        )
    return width, depth


def _side(positions: Shaped[Tensor, "n width"]) -> int:
    """The number of rows and columns of the grid that has these positions, the first of which is the class token's."""
    count = len(positions) - 1
    if math.isqrt(count) ** 2 != count:
        raise InteropError(
            f"titok weights: expected positions of a class token and of a square grid, got {count + 1}; check which "
            "project wrote the weights"
        )
    return math.isqrt(count)


def _check_axes(state: NamedTensors) -> None:
    for name, axes in _AXES.items():
        if name not in state or state[name].ndim != axes or not state[name].numel():
            found = f"the shape {tuple(state[name].shape)}" if name in state else "none"
            raise InteropError(
                f"titok weights: expected a tensor {name} with {axes} axes, got {found}; check which project wrote the "
                "weights"
            )
    for side in ("encoder", "decoder"):
        widths = {state[name].shape[-1] for name in _SUMMED if name.startswith(side)}
        if len(widths) > 1:
            raise InteropError(
                f"titok weights: expected the tokens and positions of the {side} to have one width, got "
                f"{sorted(widths)}; the file is damaged, or of another project"
            )
    tokens, places = state["latent_tokens"].shape, state["encoder.latent_token_positional_embedding"].shape
    if tokens != places:
        raise InteropError(
            f"titok weights: expected latent_tokens of the shape {tuple(places)}, as their positions have it, got "
            f"{tuple(tokens)}; the file is damaged, or of another project"
        )


def _check(tokenizer: nn.Module) -> None:
    """Refuses networks whose tensors have the same names and shapes, but which compute something else."""
    encoder, decoder = getattr(tokenizer, "encoder", None), getattr(tokenizer, "decoder", None)
    if not isinstance(encoder, TiTokEncoder):
        raise InteropError(
            f"titok weights: expected a tokenizer with a TiTokEncoder, got {type(encoder).__name__}; use a config with "
            "one"
        )
    distance = "CosineDistance" if encoder.reshaped else "EuclideanDistance"
    check_vqgan(tokenizer, "titok", distance, pixels=(0.0, 1.0))
    rows: list[tuple[str, object, object]] = []
    if decoder is not None:
        rows.append(("encoder.reshaped", isinstance(decoder, TiTokCodeDecoder), encoder.reshaped))
    for name, module in tokenizer.named_modules():
        if isinstance(module, Patches):
            rows.append((name, PixelPatches, type(module)))
        elif isinstance(module, Transformer):
            heads = declared_size(module.blocks[0], "num_heads")
            rows.append((f"{name}.num_heads", module.width // HEAD_DIM, heads))
            rows.append((f"{name}.norm_eps", NORM_EPS, module.norm.eps))
            rows.append((f"{name}.attention", SoftmaxAttention, type(module.attention)))
            rows.append((f"{name}.attention.causal", False, getattr(module.attention, "causal", False)))
    for name, wanted, found in rows:
        if wanted != found:
            raise InteropError(
                f"titok weights: expected {name} to be {wanted}, got {found}; the weights would load, but compute "
                "something else"
            )


DIALECT = Dialect(
    name="titok",
    recognises=lambda state: (
        "latent_tokens" in state
        and "encoder.latent_token_positional_embedding" in state
        and "quantize.embedding.weight" in state
        and "decoder.text_guidance_proj.weight" not in state  # TA-TiTok
    ),
    describe=_describe,
    translate=_translate,
    check=_check,
)
"""The weights of TiTok's tokenizers with codes."""
