"""A discrete Cosmos tokenizer of images gives the recorded indices and images."""

import pytest
import torch
from recordings import pixels, recorded

from vq.interop import InteropError, from_dialect
from vq.interop.convert import convert
from vq.registry import build


@torch.no_grad()
def test_outputs_are_those_of_the_published_module() -> None:
    state, wanted = recorded("cosmos")
    converted = convert(state)
    assert converted.dialect == "cosmos"
    assert converted.config["tokenizer"]["encoder"]["downsample_factor"] == 8
    tokenizer = build(converted.config["tokenizer"], path="tokenizer").eval()
    tokenizer.load_state_dict(dict(converted.tensors))
    latent = tokenizer.latent(pixels(64))
    assert wanted["latent"].std() > 0.1
    torch.testing.assert_close(latent.movedim(-1, 1), wanted["latent"], rtol=0, atol=1e-4)
    indices = tokenizer.encode(pixels(64))
    assert indices.shape == (2, 8, 8)
    assert torch.equal(indices, wanted["indices"])
    painted = tokenizer(pixels(64)).reconstruction
    torch.testing.assert_close(painted, wanted["image"], rtol=0, atol=1e-4)
    torch.testing.assert_close(tokenizer.decode(indices), painted.clamp(-1, 1), rtol=0, atol=1e-4)


def test_other_levels_are_refused() -> None:
    state, _ = recorded("cosmos")
    node = dict(convert(state).config["tokenizer"])
    node["quantizer"] = {**node["quantizer"], "eps": 1e-3}
    with torch.device("meta"):
        tokenizer = build(node, path="tokenizer")
    with pytest.raises(InteropError, match=r"eps=-0\.001\), got FiniteScalarQuantizer"):
        from_dialect(tokenizer, state, "cosmos")
