"""Open-MAGVIT2's tokenizer gives the recorded latents, indices and images, from the averaged weights."""

import pytest
import torch
from recordings import pixels, recorded
from torch import Tensor

from vq.interop import InteropError, convert, from_dialect, recognise
from vq.registry import build

TOLERANCE = {"rtol": 0, "atol": 1e-4}


def last_weights(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in state.items() if not name.startswith("model_ema.")}


@torch.no_grad()
def test_outputs_are_those_of_the_published_module() -> None:
    state, wanted = recorded("open_magvit2")
    converted = convert(state)
    assert converted.dialect == "open_magvit2"
    tokenizer = build(converted.config["tokenizer"], path="tokenizer").eval()
    tokenizer.load_state_dict(dict(converted.tensors))
    assert wanted["latent"].abs().min() > 1e-3  # so that rounding changes no sign
    torch.testing.assert_close(tokenizer.latent(pixels(32)).movedim(-1, 1), wanted["latent"], **TOLERANCE)
    indices = tokenizer.encode(pixels(32))
    assert torch.equal(indices, wanted["indices"])
    assert len(indices.unique()) > 50
    reconstruction = tokenizer(pixels(32)).reconstruction
    torch.testing.assert_close(reconstruction, wanted["image"], **TOLERANCE)
    torch.testing.assert_close(tokenizer.decode(indices), reconstruction.clamp(-1, 1), **TOLERANCE)


def test_without_averages_the_last_weights_are_taken() -> None:
    state, _ = recorded("open_magvit2")
    last = last_weights(state)
    assert recognise(last) == "open_magvit2"
    assert torch.equal(convert(last).tensors["encoder.stem.weight"], state["encoder.conv_in.weight"])
    averaged = convert(state).tensors["encoder.stem.weight"]
    assert torch.equal(averaged, state["model_ema.encoderconv_inweight"])


def test_an_average_without_its_weight_is_refused() -> None:
    state, _ = recorded("open_magvit2")
    del state["decoder.conv_in.bias"]
    with pytest.raises(
        InteropError,
        match=r"open_magvit2 weights: expected an average of each weight, got 1 .*decoderconv_inbias",
    ):
        convert(state)


def test_other_first_convolutions_are_not_recognised() -> None:
    """The tokenizer of videos has the same norms."""
    state, _ = recorded("open_magvit2")
    video = last_weights(state) | {"encoder.conv_in.weight": torch.zeros(128, 3, 3, 3, 3)}
    with pytest.raises(InteropError, match="expected those of a known project"):
        recognise(video)


def test_damaged_weights_are_named() -> None:
    last = last_weights(recorded("open_magvit2")[0])
    with pytest.raises(InteropError, match=r"got 1 with no counterpart \(encoder.mid.attn.weight\)"):
        convert(last | {"encoder.mid.attn.weight": torch.zeros(2, 2)})
    with pytest.raises(
        InteropError, match=r"a tensor encoder.conv_out.weight with 4 axes, got the shape \(7,\)"
    ):
        convert(last | {"encoder.conv_out.weight": torch.zeros(7)})
    with pytest.raises(
        InteropError, match=r"resolutions with multiples of 128 channels, got \[130, 256, 128\]"
    ):
        convert(last | {"encoder.down.0.block.0.conv1.weight": torch.zeros(130, 128, 3, 3)})
    with pytest.raises(
        InteropError, match=r"1 of another shape: decoder.levels.0.2.bias \(6,\) for \(512,\)"
    ):
        convert(last | {"decoder.up.2.upsample.conv1.bias": torch.zeros(6)})
    with pytest.raises(InteropError, match=r"1 missing: decoder.adaptive.0.scale.bias"):
        convert({name: tensor for name, tensor in last.items() if name != "decoder.adaptive.2.gamma.bias"})


@pytest.mark.parametrize(
    ("section", "message"),
    [
        (
            {"quantizer": {"type": "vq.quantizers.BinarySphericalQuantizer", "bits": 7}},
            "expected a tokenizer with a LookupFreeQuantizer, got BinarySphericalQuantizer",
        ),
        ({"value_range": [0, 1]}, r"expected a tokenizer with value_range \(-1.0, 1.0\), got \(0.0, 1.0\)"),
    ],
)
def test_tokenizers_that_compute_something_else_are_refused(section: dict[str, object], message: str) -> None:
    state, _ = recorded("open_magvit2")
    with torch.device("meta"):
        tokenizer = build({**convert(state).config["tokenizer"], **section}, path="tokenizer")
    with pytest.raises(InteropError, match=message):
        from_dialect(tokenizer, state, "open_magvit2")
