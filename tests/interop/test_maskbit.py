"""MaskBit's tokenizers and VQGAN+ give the recorded latents, indices and images."""

import pytest
import torch
from recordings import pixels, recorded

from vq.interop import InteropError, convert, from_dialect
from vq.registry import build

TOLERANCE = {"rtol": 0, "atol": 1e-4}
MODELS = {
    "maskbit": "LookupFreeQuantizer",
    "maskbit_codebook": "VectorQuantizer",
    "maskbit_vqgan_plus": "VectorQuantizer",
}


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_outputs_are_those_of_the_published_module(name: str) -> None:
    state, wanted = recorded(name)
    converted = convert(state)
    assert converted.dialect == "maskbit"
    tokenizer = build(converted.config["tokenizer"], path="tokenizer").eval()
    tokenizer.load_state_dict(dict(converted.tensors))
    assert type(tokenizer.quantizer).__name__ == MODELS[name]
    assert wanted["latent"].std() > 0.1
    torch.testing.assert_close(tokenizer.latent(pixels(16)).movedim(-1, 1), wanted["latent"], **TOLERANCE)
    indices = tokenizer.encode(pixels(16))
    assert torch.equal(indices, wanted["indices"])
    assert len(indices.unique()) > 5
    torch.testing.assert_close(tokenizer(pixels(16)).reconstruction, wanted["image"], **TOLERANCE)


@pytest.mark.parametrize("name", ["maskbit", "maskbit_codebook"])
def test_networks_on_another_range_of_pixels_are_refused(name: str) -> None:
    state, _ = recorded(name)
    tokenizer = build({**convert(state).config["tokenizer"], "value_range": [-1, 1]}, path="tokenizer")
    message = r"maskbit weights: expected a tokenizer with value_range \(0.0, 1.0\), got \(-1.0, 1.0\)"
    with pytest.raises(InteropError, match=message):
        from_dialect(tokenizer, state, "maskbit")


def test_a_tensor_of_another_network_is_named() -> None:
    state, _ = recorded("maskbit")
    with pytest.raises(
        InteropError, match=r"maskbit weights.*got 1 with no counterpart \(encoder.mid.attn.q.weight\)"
    ):
        convert(state | {"encoder.mid.attn.q.weight": torch.zeros(2, 2)})


def test_the_buffers_of_the_bits_are_not_part_of_the_tokenizer() -> None:
    state, _ = recorded("maskbit")
    assert set(convert(state).ignored) == {"quantize.bits_to_indices", "quantize.codebook"}
