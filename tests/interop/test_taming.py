"""VQGANs of taming-transformers and latent diffusion: the recorded latents, indices and images; what is recognised."""

from collections.abc import Callable

import pytest
import torch
from recordings import pixels, recorded
from torch import Tensor

from vq.interop import (
    DIALECTS,
    InteropError,
    convert,
    from_dialect,
    from_taming_gumbel,
    recognise,
    to_taming,
    to_taming_gumbel,
)
from vq.registry import build

TOLERANCE = {"rtol": 0, "atol": 1e-4}


@pytest.mark.parametrize(
    ("name", "dialect", "write"),
    [
        ("latent_diffusion", "taming", to_taming),  # attention in the middle only
        ("taming_gumbel", "taming_gumbel", to_taming_gumbel),
    ],
)
@torch.no_grad()
def test_outputs_are_those_of_the_published_module(
    name: str, dialect: str, write: Callable[[dict[str, Tensor]], dict[str, Tensor]]
) -> None:
    state, wanted = recorded(name)
    converted = convert(state)
    assert converted.dialect == dialect
    assert not converted.ignored
    tokenizer = build(converted.config["tokenizer"], path="tokenizer").eval()
    tokenizer.load_state_dict(dict(converted.tensors))
    assert wanted["latent"].std() > 0.1
    latent = tokenizer.latent(pixels(32)).movedim(-1, 1)
    torch.testing.assert_close(latent, wanted["latent"], **TOLERANCE)
    indices = tokenizer.encode(pixels(32))
    assert torch.equal(indices, wanted["indices"])
    assert len(indices.unique()) > 5
    torch.testing.assert_close(tokenizer(pixels(32)).reconstruction, wanted["image"], **TOLERANCE)
    written = write(tokenizer.state_dict())
    assert written.keys() == state.keys()
    assert all(torch.equal(written[key], tensor) for key, tensor in state.items())


def test_attention_in_the_middle_only_is_described() -> None:
    state, _ = recorded("latent_diffusion")
    encoder = convert(state).config["tokenizer"]["encoder"]
    assert (encoder["attention"], encoder["middle_attention"]) == (False, True)


def test_weights_of_ibq_are_not_taken_for_taming() -> None:
    """Its names are the same, but it selects codes by the scalar product."""
    state, _ = recorded("latent_diffusion")
    assert recognise(state) == "taming"
    assert not DIALECTS["taming"].recognises(state | {"model_ema.decay": torch.tensor(0.999)})


def test_gumbel_inside_a_transformer() -> None:
    state, _ = recorded("taming_gumbel")
    inside = {f"first_stage_model.{name}": tensor for name, tensor in state.items()}
    converted = convert({**inside, "transformer.head.weight": torch.zeros(1)})
    assert converted.dialect == "taming_gumbel"
    assert converted.ignored == ("transformer.head.weight",)
    assert from_taming_gumbel(inside).keys() == converted.tensors.keys()


def test_codes_of_another_dimension_than_the_features_are_refused() -> None:
    state, _ = recorded("taming_gumbel")
    state["quantize.embed.weight"] = state["quantize.embed.weight"][:, :8]
    with pytest.raises(InteropError, match=r"expected quantize\.proj\.weight of shape \(64, 8, 1, 1\)"):
        convert(state)


def test_another_quantizer_is_refused() -> None:
    gumbel, _ = recorded("taming_gumbel")
    with torch.device("meta"):
        nearest = build(convert(recorded("latent_diffusion")[0]).config["tokenizer"], path="tokenizer")
    with pytest.raises(
        InteropError, match="expected a tokenizer with a GumbelQuantizer, got VectorQuantizer"
    ):
        from_dialect(nearest, gumbel, "taming_gumbel")
