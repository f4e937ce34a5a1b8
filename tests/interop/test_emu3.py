"""Emu3 gives the recorded indices and images of single images, from the project's files and those of transformers."""

import numpy as np
import pytest
import torch
from foreign_models import fill_emu3
from recordings import pixels, recorded
from torch import Tensor

from vq.interop import InteropError, from_dialect
from vq.interop.convert import convert
from vq.registry import build


def published(name: str = "emu3") -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The weights and the recorded arrays."""
    state, wanted = recorded(name)
    fill_emu3(state)
    return state, wanted


@pytest.mark.parametrize("name", ["emu3", "emu3_transformers"])
@torch.no_grad()
def test_outputs_are_those_of_the_published_module(name: str) -> None:
    state, wanted = published(name)
    converted = convert(state)
    assert converted.dialect == "emu3"
    tokenizer = build(converted.config["tokenizer"], path="tokenizer").eval()
    tokenizer.load_state_dict(dict(converted.tensors))
    latent = tokenizer.latent(pixels(16))
    assert wanted["latent"].std() > 0.1
    torch.testing.assert_close(latent, wanted["latent"], rtol=0, atol=1e-4)
    indices = tokenizer.encode(pixels(16))
    assert torch.equal(indices, wanted["indices"])
    assert len(indices.unique()) > 5
    painted = tokenizer(pixels(16)).reconstruction
    assert painted.std() > 0.1
    torch.testing.assert_close(painted, wanted["image"], rtol=0, atol=1e-4)


def test_names_in_whole_models_of_both_kinds_are_read() -> None:
    state, _ = published("emu3_transformers")
    assert all(name.startswith("vqmodel.") for name in state)
    whole = {f"model.{name}": tensor for name, tensor in state.items()} | {"lm_head.weight": torch.ones(1)}
    converted = convert(whole)
    assert converted.ignored == ("lm_head.weight",)
    assert converted.config == convert(state).config


def test_counters_of_batch_norms_are_left_out_and_other_tensors_are_refused() -> None:
    state, _ = published()
    counter = "encoder.time_res_stack.0.norm1.num_batches_tracked"
    assert convert(state | {counter: torch.tensor(5)}).ignored == (counter,)
    with pytest.raises(InteropError, match=r"1 with no counterpart \(decoder.mid.attn_1.norm.other"):
        convert(state | {"decoder.mid.attn_1.norm.other": torch.ones(1)})
    state["decoder.time_res_stack.0.norm1.bias"] = torch.ones(3)
    with pytest.raises(InteropError, match=r"4 with no counterpart \(decoder.time_res_stack.0.norm1.weight"):
        convert(state)
    state, _ = published()
    del state["decoder.time_res_stack.1.norm2.running_var"]
    with pytest.raises(InteropError, match=r"3 with no counterpart \(decoder.time_res_stack.1.norm2.weight"):
        convert(state)


def test_weights_without_a_codebook_are_refused() -> None:
    state, _ = published()
    del state["quantize.embedding.weight"]
    with pytest.raises(
        InteropError, match=r"emu3 weights: expected a tensor quantize.embedding.weight with 2 axes"
    ):
        convert(state, "emu3")


def test_kernels_over_other_numbers_of_frames_are_refused() -> None:
    state, _ = published()
    for name, found in (("encoder.time_conv.1.conv.conv.weight", 3), ("post_quant_conv.conv.weight", 2)):
        short = state[name][:, :, :found]
        with pytest.raises(
            InteropError, match=f"expected {name} to be a kernel over {short.shape[2] + 1} frames"
        ):
            convert({**state, name: short})


def test_scales_have_the_statistics_of_the_batch_norms() -> None:
    state, _ = published()
    theirs, x = "decoder.time_res_stack.0.norm1.", torch.randn(2, 4, 3, 5)
    weight, bias, mean, variance = (
        state[f"{theirs}{part}"].numpy()[:, None, None]
        for part in ("weight", "bias", "running_mean", "running_var")
    )
    ours = convert(state).tensors
    scale, shift = (ours[f"decoder.blocks.0.scale1.{part}"].flatten() for part in ("weight", "bias"))
    wanted = (x.numpy() - mean) / np.sqrt(variance + 1e-5) * weight + bias
    np.testing.assert_allclose(x * scale[:, None, None] + shift[:, None, None], wanted, atol=1e-6)


def test_another_distance_is_refused() -> None:
    state, _ = published()
    config = convert(state).config["tokenizer"]
    quantizer = {**config["quantizer"], "distance": {"type": "vq.quantizers.CosineDistance"}}
    with torch.device("meta"):
        tokenizer = build({**config, "quantizer": quantizer}, path="tokenizer")
    with pytest.raises(InteropError, match="expected a quantizer with EuclideanDistance, got CosineDistance"):
        from_dialect(tokenizer, state, "emu3")
