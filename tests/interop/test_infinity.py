"""An Infinity tokenizer gives the recorded bits at all scales and the recorded images."""

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
    state, wanted = recorded("infinity")
    section = dict(convert(state).config["tokenizer"])
    # The recorded module halves images of 32 pixels once, so that they have the scales of published ones of 256.
    section["quantizer"] = {**section["quantizer"], "scales": [1, 2, 4, 6, 8, 12, 16]}
    converted = convert(state, config={"tokenizer": section})
    assert converted.dialect == "infinity"
    assert converted.ignored == ("quantizer.lfq.mask", "quantize.lfq.mask")
    tokenizer = build(converted.config["tokenizer"], path="tokenizer").eval()
    tokenizer.load_state_dict(dict(converted.tensors))
    latent = tokenizer.latent(pixels(32))
    assert wanted["latent"].std() > 0.1
    torch.testing.assert_close(latent.movedim(-1, 1), wanted["latent"], rtol=0, atol=1e-4)
    indices = tokenizer.encode(pixels(32))
    assert indices.shape == (2, 521)
    bits = indices[..., None] >> torch.arange(16) & 1
    assert torch.equal(bits.bool(), wanted["bits"])
    painted = tokenizer(pixels(32)).reconstruction
    torch.testing.assert_close(painted, wanted["image"], rtol=0, atol=1e-4)
    torch.testing.assert_close(tokenizer.decode(indices), painted.clamp(-1, 1), rtol=0, atol=1e-4)


def test_tensors_are_found_in_the_published_wrapping(tmp_path: Path) -> None:
    torch.save({"vae": {"encoder.conv_in.conv.weight": torch.ones(2)}}, tmp_path / "infinity_vae_d16.pth")
    assert list(read_tensors(tmp_path / "infinity_vae_d16.pth")) == ["encoder.conv_in.conv.weight"]


def test_resolution_decides_the_scales() -> None:
    state, _ = recorded("infinity")
    with pytest.raises(InteropError, match="expected a resolution of 256, 512, 1024"):
        convert(state, options={"resolution": 384})


def test_codes_that_no_index_can_number_are_refused() -> None:
    state, _ = recorded("infinity")
    with torch.device("meta"):
        state["encoder.conv_out.conv.weight"] = torch.empty(64, 256, 3, 3)
    with pytest.raises(InteropError, match="expected codes of at most 62 bits, got 64"):
        convert(state)


def test_another_quantizer_is_refused() -> None:
    state, _ = recorded("infinity")
    node = dict(convert(state).config["tokenizer"])
    node["quantizer"] = {**node["quantizer"], "upsampling": "bicubic"}
    with torch.device("meta"):
        tokenizer = build(node, path="tokenizer")
    with pytest.raises(InteropError, match="upsampling='bilinear', got MultiScaleResidualQuantizer"):
        from_dialect(tokenizer, state, "infinity")
