"""The tokenizers of multimodal language models give the recorded latents, indices and images."""

import pytest
import torch
from recordings import pixels, recorded

from vq.interop import DIALECTS, convert
from vq.registry import build

TOLERANCE = {"rtol": 0, "atol": 1e-4}


@pytest.mark.parametrize(
    ("name", "dialect", "ignored"),
    [
        ("janus", "llamagen", ("gen_vision_model.quantize.codebook_used", "gen_embed.weight")),
        ("janus_transformers", "janus", ()),
        ("chameleon", "taming", ()),
    ],
)
@torch.no_grad()
def test_outputs_are_those_of_the_published_module(name: str, dialect: str, ignored: tuple[str, ...]) -> None:
    state, wanted = recorded(name)
    converted = convert(state)
    assert converted.dialect == dialect
    assert set(converted.ignored) == set(ignored)
    tokenizer = build(converted.config["tokenizer"], path="tokenizer").eval()
    tokenizer.load_state_dict(dict(converted.tensors))
    assert wanted["latent"].std() > 0.1
    latent = tokenizer.pre_quant(tokenizer.encoder(pixels(16)))
    torch.testing.assert_close(latent, wanted["latent"], **TOLERANCE)
    indices = tokenizer.encode(pixels(16))
    assert torch.equal(indices, wanted["indices"])
    assert len(indices.unique()) > 5
    torch.testing.assert_close(tokenizer(pixels(16)).reconstruction, wanted["image"], **TOLERANCE)


def test_other_parts_of_a_whole_model_are_dropped() -> None:
    state, _ = recorded("janus")
    alone = {name: tensor for name, tensor in state.items() if name.startswith("gen_vision_model.")}
    more = {"language_model.lm_head.weight": torch.zeros(8, 4), "vision_model.norm.weight": torch.zeros(4)}
    assert convert(state | more).tensors.keys() == convert(alone).tensors.keys()
    assert set(more) < set(convert(state | more).ignored)


def test_a_file_of_transformers_is_converted_and_written() -> None:
    state, _ = recorded("janus_transformers")
    alone = {name.removeprefix("model.vqmodel."): tensor for name, tensor in state.items()}
    converted = convert(alone)
    assert converted.dialect == "janus"
    write = DIALECTS["janus"].write
    assert write is not None
    assert {name: id(tensor) for name, tensor in write(converted.tensors).items()} == {
        name: id(tensor) for name, tensor in alone.items()
    }
