"""UniTok gives the recorded indices of its eight codebooks and the recorded images."""

from pathlib import Path

import pytest
import torch
from recordings import pixels, recorded

from vq.interop import InteropError, from_dialect
from vq.interop.convert import convert
from vq.pretrained import read_tensors
from vq.registry import build


@torch.no_grad()
def test_outputs_are_those_of_the_published_module() -> None:
    state, wanted = recorded("unitok")
    converted = convert(state)
    assert converted.dialect == "unitok"
    tokenizer = build(converted.config["tokenizer"], path="tokenizer").eval()
    tokenizer.load_state_dict(dict(converted.tensors))
    latent = tokenizer.latent(pixels(64))
    assert wanted["latent"].std() > 0.1
    torch.testing.assert_close(latent, wanted["latent"], rtol=0, atol=1e-4)
    indices = tokenizer.encode(pixels(64))
    assert torch.equal(indices, wanted["indices"])
    assert indices.shape == (2, 4, 4, 8)
    painted = tokenizer(pixels(64)).reconstruction
    assert painted.std() > 0.1
    torch.testing.assert_close(painted, wanted["image"], rtol=0, atol=1e-4)


def test_tensors_are_found_in_the_published_wrapping(tmp_path: Path) -> None:
    file = tmp_path / "unitok_tokenizer.pth"
    arguments = {"model": "vitamin_large", "dtype": torch.float32}
    torch.save(
        {"args": arguments, "trainer": {"config": {}, "unitok": {"logit_scale": torch.ones(())}}}, file
    )
    assert list(read_tensors(file)) == ["logit_scale"]


def test_other_heads_and_distances_are_refused() -> None:
    state, _ = recorded("unitok")
    config = convert(state).config["tokenizer"]
    heads = {**config, "encoder": {**config["encoder"], "num_heads": 6}}
    parts = [
        {**node, "distance": {"type": "vq.quantizers.EuclideanDistance"}}
        for node in config["quantizer"]["quantizers"]
    ]
    distance = {**config, "quantizer": {**config["quantizer"], "quantizers": parts}}
    for node, message in (
        (heads, "expected 12 attention heads"),
        (distance, "expected a quantizer with Cosine"),
    ):
        with torch.device("meta"):
            tokenizer = build(node, path="tokenizer")
        with pytest.raises(InteropError, match=message):
            from_dialect(tokenizer, state, "unitok")
