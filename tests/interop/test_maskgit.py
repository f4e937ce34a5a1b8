"""MaskGIT's VQGAN gives the recorded latents, indices and images."""

import pytest
import torch
from recordings import pixels, recorded

from vq.interop import InteropError, convert, from_dialect
from vq.registry import build

TOLERANCE = {"rtol": 0, "atol": 1e-4}


@torch.no_grad()
def test_outputs_are_those_of_the_published_module() -> None:
    state, wanted = recorded("maskgit")
    converted = convert(state)
    assert converted.dialect == "maskgit"
    tokenizer = build(converted.config["tokenizer"], path="tokenizer").eval()
    tokenizer.load_state_dict(dict(converted.tensors))
    assert wanted["latent"].std() > 0.1
    torch.testing.assert_close(tokenizer.latent(pixels(16)).movedim(-1, 1), wanted["latent"], **TOLERANCE)
    indices = tokenizer.encode(pixels(16))
    assert torch.equal(indices, wanted["indices"])
    assert len(indices.unique()) > 5
    torch.testing.assert_close(tokenizer(pixels(16)).reconstruction, wanted["image"], **TOLERANCE)


def test_networks_on_another_range_of_pixels_are_refused() -> None:
    state, _ = recorded("maskgit")
    tokenizer = build({**convert(state).config["tokenizer"], "value_range": [-1, 1]}, path="tokenizer")
    with pytest.raises(
        InteropError, match=r"expected a tokenizer with value_range \(0.0, 1.0\), got \(-1.0, 1.0\)"
    ):
        from_dialect(tokenizer, state, "maskgit")


def test_a_tensor_of_another_network_is_named() -> None:
    state, _ = recorded("maskgit")
    with pytest.raises(InteropError, match=r"got 1 with no counterpart \(encoder.mid.attn.q.weight\)"):
        convert(state | {"encoder.mid.attn.q.weight": torch.zeros(2, 2)})


def test_networks_of_different_sizes_are_refused() -> None:
    state, _ = recorded("maskgit")
    mixed = {name: tensor for name, tensor in state.items() if not name.startswith("decoder.mid")}
    mixed = {name: tensor for name, tensor in mixed.items() if ".up.1." not in name}
    with pytest.raises(InteropError, match="expected an encoder and a decoder of the same sizes"):
        convert(mixed)
