"""VAR's tokenizer gives the recorded indices at all ten scales and the recorded images."""

import pytest
import torch
from recordings import pixels, recorded

from vq.interop import InteropError, from_dialect
from vq.interop.convert import convert
from vq.registry import build


@torch.no_grad()
def test_outputs_are_those_of_the_published_module() -> None:
    state, wanted = recorded("var")
    converted = convert(state)
    assert converted.dialect == "var"
    assert converted.ignored == ("quantize.ema_vocab_hit_SV",)
    tokenizer = build(converted.config["tokenizer"], path="tokenizer").eval()
    tokenizer.load_state_dict(dict(converted.tensors))
    latent = tokenizer.latent(pixels(32))
    assert wanted["latent"].std() > 0.1
    torch.testing.assert_close(latent.movedim(-1, 1), wanted["latent"], rtol=0, atol=1e-4)
    indices = tokenizer.encode(pixels(32))
    assert indices.shape == (2, 680)
    assert torch.equal(indices, wanted["indices"])
    assert all(len(scale.unique()) > 1 for scale in tokenizer.quantizer.scale_maps(indices)[1:])
    torch.testing.assert_close(tokenizer(pixels(32)).reconstruction, wanted["image"], rtol=0, atol=1e-4)
    torch.testing.assert_close(
        tokenizer.decode(wanted["indices"]), wanted["image"].clamp(-1, 1), rtol=0, atol=1e-4
    )


def test_resolution_decides_the_scales() -> None:
    state, _ = recorded("var")
    config = convert(state, options={"resolution": 512}).config
    assert config["tokenizer"]["quantizer"]["scales"][-1] == 32
    with pytest.raises(InteropError, match="expected the resolution 256 or 512"):
        convert(state, options={"resolution": 384})


def test_another_blend_of_the_convolutions_is_refused() -> None:
    state, _ = recorded("var")
    converted = convert(state)
    node = dict(converted.config["tokenizer"])
    node["quantizer"] = {**node["quantizer"], "mix": 0.25}
    with torch.device("meta"):
        tokenizer = build(node, path="tokenizer")
    with pytest.raises(InteropError, match=r"of mix 0\.5, got MultiScaleResidualQuantizer of mix 0\.25"):
        from_dialect(tokenizer, state, "var")
