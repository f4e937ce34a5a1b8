"""TiTok's tokenizers of two stages and of one give the recorded latents, indices and images."""

import pytest
import torch
from recordings import pixels, recorded

from vq.interop import InteropError, convert, from_dialect
from vq.registry import build

TOLERANCE = {"rtol": 0, "atol": 1e-4}


@pytest.mark.parametrize("name", ["titok_s128", "titok_sl256_vq8k"])
@torch.no_grad()
def test_outputs_are_those_of_the_published_module(name: str) -> None:
    state, wanted = recorded(name)
    converted = convert(state)
    assert converted.dialect == "titok"
    tokenizer = build(converted.config["tokenizer"], path="tokenizer").eval()
    tokenizer.load_state_dict(dict(converted.tensors))
    assert wanted["latent"].std() > 0.1
    torch.testing.assert_close(tokenizer.latent(pixels(16)).mT, wanted["latent"], **TOLERANCE)
    indices = tokenizer.encode(pixels(16))
    assert torch.equal(indices, wanted["indices"])
    assert len(indices.unique()) > 5
    assert wanted["image"].std() > 0.1
    torch.testing.assert_close(tokenizer(pixels(16)).reconstruction, wanted["image"], **TOLERANCE)


def test_weights_of_the_first_stage_are_refused() -> None:
    state, _ = recorded("titok_s128")
    with pytest.raises(InteropError, match="expected a decoder of pixels, got only that of proxy codes"):
        convert({name: tensor for name, tensor in state.items() if not name.startswith("pixel_")})


def test_the_text_of_ta_titok_is_not_dropped() -> None:
    state, _ = recorded("titok_sl256_vq8k")
    text = {"decoder.text_guidance_proj.weight": torch.zeros(512, 768)}
    with pytest.raises(InteropError, match="expected those of a known project"):
        convert(state | text)
    with pytest.raises(InteropError, match=r"1 with no counterpart \(decoder.text_guidance_proj.weight\)"):
        convert(state | text, "titok")


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        (
            "encoder.conv_out.weight",
            (8, 512),
            "expected a tensor encoder.conv_out.weight with 4 axes, got the shape",
        ),
        ("decoder.mask_token", (1, 1, 64), r"the decoder to have one width, got \[64, 512\]"),
        ("latent_tokens", (5, 512), r"expected latent_tokens of the shape \(16, 512\), .* got \(5, 512\)"),
        ("encoder.positional_embedding", (16, 512), "of a class token and of a square grid, got 16"),
        (
            "decoder.transformer.1.mlp.c_fc.bias",
            (7,),
            r"1 of another shape: decoder.transformer.blocks.1.up.bias",
        ),
    ],
)
def test_damaged_tensors_are_named(name: str, shape: tuple[int, ...], message: str) -> None:
    state, _ = recorded("titok_sl256_vq8k")
    with pytest.raises(InteropError, match=message):
        convert({**state, name: torch.zeros(shape)})


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("value_range", [-1, 1], r"expected a tokenizer with value_range \(0.0, 1.0\), got \(-1.0, 1.0\)"),
        ("encoder.reshaped", True, "expected a quantizer with CosineDistance"),
        (
            "encoder.transformer.norm_eps",
            1e-6,
            "expected encoder.transformer.norm_eps to be 1e-05, got 1e-06",
        ),
        ("decoder.transformer.num_heads", 4, "expected decoder.transformer.num_heads to be 8, got 4"),
        (
            "decoder.patches.type",
            "vq.layers.FrequencyPatches",
            "expected decoder.patches to be .*PixelPatches",
        ),
    ],
)
def test_networks_that_compute_something_else_are_refused(key: str, value: object, message: str) -> None:
    state, _ = recorded("titok_sl256_vq8k")
    section = convert(state).config["tokenizer"]
    node = section
    *path, last = key.split(".")
    for part in path:
        node = node[part]
    node[last] = value
    with pytest.raises(InteropError, match=message):
        from_dialect(build(section, path="tokenizer"), state, "titok")
