"""LlamaGen's class-conditional transformer gives the recorded probabilities and tokens, and is sampled here."""

import pytest
import torch
from recordings import recorded
from torch import Tensor

import vq
from vq.generators import LLAMA_SIZES, TransformerGenerator
from vq.interop import Conversion, InteropError, convert, from_dialect, to_llamagen_gpt
from vq.registry import build
from vq.tokenizers.checkpoint import save_weights
from vq.zoo import find
from vq.zoo.families.llamagen import GPT_SIZES, gpt

CONFIG = {"generator": gpt(width=64, depth=2, num_heads=4, hidden=256, image_size=64, codes=32, classes=5)}


@pytest.fixture(scope="module")
def recording() -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    return recorded("llamagen_gpt")


@pytest.fixture(scope="module")
def converted(recording: tuple[dict[str, Tensor], dict[str, Tensor]]) -> Conversion:
    return convert(recording[0], config=CONFIG)


@pytest.fixture(scope="module")
def generator(converted: Conversion, tmp_path_factory: pytest.TempPathFactory) -> TransformerGenerator:
    """The generator, from a weight file that holds the converted weights and their config."""
    path = tmp_path_factory.mktemp("gpt") / "generator.safetensors"
    save_weights(converted.tensors, path, converted.config)
    return vq.load_generator(path)


@torch.no_grad()
def test_probabilities(
    generator: TransformerGenerator, recording: tuple[dict[str, Tensor], dict[str, Tensor]]
) -> None:
    wanted = recording[1]
    assert wanted["logits"].std() > 0.1
    logits = generator(wanted["tokens"], wanted["labels"]).logits[:, :, 0]
    torch.testing.assert_close(logits, wanted["logits"], rtol=0, atol=1e-4)


@pytest.mark.parametrize(("name", "guidance"), [("likeliest", 1.0), ("likeliest_with_guidance", 2.0)])
def test_the_sampler_takes_the_same_likeliest_tokens(
    generator: TransformerGenerator,
    recording: tuple[dict[str, Tensor], dict[str, Tensor]],
    name: str,
    guidance: float,
) -> None:
    wanted = recording[1]
    found = generator.generate(wanted["labels"], seeds=range(3), guidance=guidance, top_k=1)
    assert torch.equal(found.flatten(1), wanted[name])
    assert len(wanted[name].unique()) > 8


def test_samples_differ_between_seeds(generator: TransformerGenerator) -> None:
    first, second = generator.generate([1, 1], seeds=[0, 1], guidance=1.5, top_k=16)
    assert first.shape == (4, 4)
    assert not torch.equal(first, second)


def test_there_and_back(
    converted: Conversion, recording: tuple[dict[str, Tensor], dict[str, Tensor]]
) -> None:
    assert converted.dialect == "llamagen_gpt"
    assert converted.ignored == ()
    back = to_llamagen_gpt(converted.tensors)
    assert back.keys() == recording[0].keys()
    assert all(torch.equal(back[name], tensor) for name, tensor in recording[0].items())


@pytest.mark.parametrize("name", ["llamagen/c2i_B_256", "llamagen/c2i_B_384", "llamagen/c2i_L_384"])
def test_the_description_is_that_of_the_catalogue(name: str) -> None:
    _, model = find(name)
    with torch.device("meta"):
        state = to_llamagen_gpt(build(model.config["generator"], path="generator").state_dict())
    assert convert(state, options=model.options).config == model.config
    with pytest.raises(
        InteropError, match=r"option image_size, a multiple of 16, got 0; .* 256 for the files"
    ):
        convert(state)


@pytest.mark.parametrize("size", GPT_SIZES)
def test_the_pages_are_those_of_the_catalogue(size: str) -> None:
    page = vq.config.load(f"llamagen/c2i_{size}_imagenet_ddp").to_dict()
    assert page["generator"] == gpt(**GPT_SIZES[size], image_size=256)
    assert LLAMA_SIZES[size] == GPT_SIZES[size]


def test_another_size_needs_a_config(recording: tuple[dict[str, Tensor], dict[str, Tensor]]) -> None:
    with pytest.raises(InteropError, match=r"a published size.* got 2 blocks of 64 channels; give a config"):
        convert(recording[0], options={"image_size": 64})


@pytest.mark.parametrize(
    "change", [{"order": "zigzag"}, {"transformer": {**CONFIG["generator"]["transformer"], "style": None}}]
)
def test_other_generators_are_refused(
    recording: tuple[dict[str, Tensor], dict[str, Tensor]], change: dict[str, object]
) -> None:
    other = build({**CONFIG["generator"], **change}, path="generator")
    with pytest.raises(InteropError, match=r"in raster order with LlamaStyle\(class_key=False\)"):
        from_dialect(other, recording[0], "llamagen_gpt")


def test_a_name_without_counterpart(recording: tuple[dict[str, Tensor], dict[str, Tensor]]) -> None:
    with pytest.raises(InteropError, match=r"1 with no counterpart \(layers.0.attention.bias\)"):
        convert(recording[0] | {"layers.0.attention.bias": torch.zeros(1)}, config=CONFIG)
    generator = build(
        {
            **CONFIG["generator"],
            "transformer": {
                **CONFIG["generator"]["transformer"],
                "style": {"type": "vq.generators.GPT2Style"},
            },
        },
        path="generator",
    )
    with pytest.raises(InteropError, match="expected a TransformerGenerator with LlamaStyle"):
        to_llamagen_gpt(generator.state_dict())
