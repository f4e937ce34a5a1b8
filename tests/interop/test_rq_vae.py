"""RQ-VAE gives the recorded indices, four per position, and the recorded images."""

from pathlib import Path

import pytest
import torch
from recordings import pixels, recorded
from torch import Tensor

from vq.interop import InteropError, from_dialect
from vq.interop.convert import convert
from vq.pretrained import read_tensors
from vq.registry import build

CODEBOOK = "quantizer.codebooks."


def published() -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The weights, with one codebook under four names, and the recorded arrays."""
    state, wanted = recorded("rq_vae")
    for name in state:
        if name.startswith(CODEBOOK):
            state[name] = state[f"{CODEBOOK}0.{name.rpartition('.')[2]}"]
    return state, wanted


@torch.no_grad()
def test_outputs_are_those_of_the_published_module() -> None:
    state, wanted = published()
    converted = convert(state)
    assert converted.dialect == "rq_vae"
    assert converted.config["tokenizer"]["encoder"]["attention"] == [1]
    tokenizer = build(converted.config["tokenizer"], path="tokenizer").eval()
    tokenizer.load_state_dict(dict(converted.tensors))
    latent = tokenizer.latent(pixels(16))
    assert wanted["latent"].std() > 0.1
    torch.testing.assert_close(latent, wanted["latent"], rtol=0, atol=1e-4)
    indices = tokenizer.encode(pixels(16))
    assert indices.shape == (2, 4, 4, 4)
    assert torch.equal(indices, wanted["indices"])
    assert all(len(indices[..., stage].unique()) > 5 for stage in range(4))
    decoded = tokenizer.decode(indices)  # limited to [-1, 1]
    torch.testing.assert_close(decoded, wanted["image"].clamp(-1, 1), rtol=0, atol=1e-4)
    torch.testing.assert_close(tokenizer(pixels(16)).reconstruction, wanted["image"], rtol=0, atol=1e-4)


def test_the_padding_is_dropped_and_the_averages_are_kept() -> None:
    state, _ = published()
    ours = convert(state).tensors
    for stage in range(4):
        codebook = f"quantizer.stages.{stage}.codebook"
        assert torch.equal(ours[f"{codebook}.weight"], state[f"{CODEBOOK}0.weight"][:32])
        assert torch.equal(ours[f"{codebook}.usage"], state[f"{CODEBOOK}0.cluster_size_ema"])
        assert torch.equal(ours[f"{codebook}.sums"], state[f"{CODEBOOK}0.embed_ema"])
        assert ours[f"{codebook}.initialised"] == 1


def test_tensors_are_found_in_the_published_wrapping(tmp_path: Path) -> None:
    state, _ = published()
    file = tmp_path / "model.pt"
    others = {"discriminator": {"0.weight": torch.ones(1)}, "optimizer": {"state": {}}, "scheduler": {}}
    torch.save({"epoch": 10, "state_dict": state, **others}, file)
    converted = convert(read_tensors(file))
    assert (converted.num_read, converted.ignored) == (len(state), ())


def test_weights_without_a_codebook_are_refused() -> None:
    state, _ = published()
    with pytest.raises(
        InteropError, match=r"rq_vae weights: expected a tensor quantizer.codebooks.0.weight with 2 "
    ):
        convert({name: tensor for name, tensor in state.items() if CODEBOOK not in name}, "rq_vae")
    with pytest.raises(
        InteropError, match=r"rq_vae weights: .* got 1 with no counterpart \(quantizer.codebooks.0.o"
    ):
        convert({**state, f"{CODEBOOK}0.other": torch.ones(1)})


def test_codebooks_that_differ_are_refused() -> None:
    state, _ = published()
    with pytest.raises(
        InteropError, match="expected one codebook that all stages share, got another weight in"
    ):
        convert({**state, f"{CODEBOOK}2.weight": state[f"{CODEBOOK}2.weight"] + 1})
    with pytest.raises(InteropError, match="got another embed_ema in stage 3"):
        convert({**state, f"{CODEBOOK}3.embed_ema": torch.zeros(16, 8, device="meta")})


def test_other_quantizers_are_refused() -> None:
    state, _ = published()
    config = convert(state).config["tokenizer"]
    stage = config["quantizer"]["quantizers"][0]
    cosine = {**stage, "distance": {"type": "vq.quantizers.CosineDistance"}}
    scaled = {**config["quantizer"], "scales": [1.0, 0.5, 0.25, 0.125]}
    for quantizer, message in (
        (stage, "expected a tokenizer with a ResidualQuantizer without scales, got VectorQuantizer"),
        (scaled, "expected a tokenizer with a ResidualQuantizer without scales"),
        ({**config["quantizer"], "quantizers": [cosine]}, "with EuclideanDistance, got CosineDistance"),
    ):
        with torch.device("meta"):
            tokenizer = build({**config, "quantizer": quantizer}, path="tokenizer")
        with pytest.raises(InteropError, match=message):
            from_dialect(tokenizer, state, "rq_vae")
