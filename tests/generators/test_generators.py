"""Every kind of generator: what it may see, what it learns, and that a sample is its seed's alone."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from vq.generators import (
    LLAMA_SIZES,
    DecoderTransformer,
    Generator,
    GPT2Style,
    LlamaStyle,
    MaskedGenerator,
    PixelCNNGenerator,
    TransformerGenerator,
)

SHAPE: dict[str, Any] = {"vocabulary_size": 12, "num_classes": 3, "grid": (3, 4)}


def transformer(**changes: Any) -> DecoderTransformer:
    return DecoderTransformer(**({"width": 32, "depth": 2, "num_heads": 4} | changes))


KINDS: dict[str, Callable[[], Generator]] = {
    "llama": lambda: TransformerGenerator(transformer=transformer(), **SHAPE),
    "llama-gqa-qk-norm": lambda: TransformerGenerator(
        transformer=transformer(num_kv_heads=2, style=LlamaStyle(qk_norm=True)), **SHAPE
    ),
    "no-class-key": lambda: TransformerGenerator(
        transformer=transformer(style=LlamaStyle(class_key=False)), **SHAPE
    ),
    "gpt2": lambda: TransformerGenerator(transformer=transformer(style=GPT2Style()), **SHAPE),
    "zigzag": lambda: TransformerGenerator(transformer=transformer(), order="zigzag", **SHAPE),
    "sequence": lambda: TransformerGenerator(transformer=transformer(), **(SHAPE | {"grid": (9,)})),
    "stacked": lambda: TransformerGenerator(
        transformer=transformer(), num_indices=3, depth_transformer=transformer(depth=1), **SHAPE
    ),
    "masked": lambda: MaskedGenerator(transformer=transformer(style=GPT2Style()), **SHAPE),
    "pixelcnn": lambda: PixelCNNGenerator(width=16, depth=3, class_dropout=0.1, **SHAPE),
}
ORDERED = [name for name in KINDS if name != "masked"]


@pytest.fixture(params=KINDS)
def generator(request: pytest.FixtureRequest) -> Generator:
    torch.manual_seed(0)
    return KINDS[request.param]().eval()


def indices_of(generator: Generator, count: int = 4) -> torch.Tensor:
    stack = (generator.num_indices,) if generator.num_indices > 1 else ()
    keyed = torch.Generator().manual_seed(1)
    return torch.randint(generator.vocabulary_size, (count, *generator.grid, *stack), generator=keyed)


def test_a_sample_depends_on_its_class_and_seed_alone(generator: Generator) -> None:
    """In float64: products of another batch size round differently, which could tip a float32 draw."""
    generator.double()
    label, seeds = torch.tensor([0, 1, 2, 1]), torch.tensor([5, 6, 7, 8])
    settings: dict[str, Any] = {"guidance": 1.5, "top_k": 6, "temperature": 0.9}
    together = generator.generate(label, seeds=seeds, **settings)
    alone = torch.cat(
        [generator.generate(label[i : i + 1], seeds=seeds[i : i + 1], **settings) for i in range(4)]
    )
    assert torch.equal(together, alone)
    assert together.min() >= 0
    assert together.max() < 12
    other = generator.generate(label, seeds=seeds + 100, **settings)
    assert not torch.equal(together, other)
    assert together.shape == indices_of(generator).shape


def test_a_prefix_is_kept(generator: Generator) -> None:
    indices = indices_of(generator)
    half = indices.flatten(1, len(generator.grid))[:, : generator.num_positions // 2]
    drawn = generator.generate(torch.zeros(4).long(), seeds=torch.arange(4), prefix=half)
    assert torch.equal(drawn.flatten(1, len(generator.grid))[:, : half.shape[1]], half)


def test_guidance_of_one_is_the_conditional_model(generator: Generator) -> None:
    label, seeds = torch.tensor([0, 2]), torch.tensor([1, 2])
    plain = generator.generate(label, seeds=seeds)
    nearly = generator.generate(label, seeds=seeds, guidance=1.0 + 1e-9)
    assert torch.equal(plain, nearly)


def test_it_learns_eight_pictures_by_heart(generator: Generator) -> None:
    generator.train()
    generator.class_dropout = 0.0
    indices, label = indices_of(generator, 8), torch.arange(8) % 3
    for i in range(8):  # what tells two pictures of a class apart must stand in their first place
        indices[i].view(-1)[: generator.num_indices] = i
    optimizer = torch.optim.AdamW(generator.parameters(), lr=1e-2)
    steps = 400 if isinstance(generator, MaskedGenerator) else 120
    for _ in range(steps):
        loss = generator(indices, label).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    generator.eval()
    with torch.no_grad():
        output = generator(indices, label)
    first = (
        torch.log(torch.tensor(8 / 3)) / generator.num_positions
    )  # the first place is a guess among those of a class
    assert output.loss < first + (0.8 if isinstance(generator, MaskedGenerator) else 0.15)


@pytest.mark.parametrize("name", ORDERED)
def test_no_index_sees_itself_or_what_comes_after_it(name: str) -> None:
    torch.manual_seed(0)
    generator = KINDS[name]().eval()
    indices, label = indices_of(generator, 1), torch.tensor([1])
    with torch.no_grad():
        before = generator(indices, label).logits
    order = (
        list(generator.order)
        if isinstance(generator, TransformerGenerator)
        else range(generator.num_positions)
    )
    flat = indices.view(1, generator.num_positions, -1)
    for position, place in enumerate(order):
        for depth in range(flat.shape[2]):
            changed = flat.clone()
            changed[0, place, depth] = (changed[0, place, depth] + 1) % generator.vocabulary_size
            with torch.no_grad():
                after = generator(changed.view_as(indices), label).logits
            moved = (after - before).abs().amax(-1)[0] > 1e-6
            earlier = list(order)[:position]
            assert not moved[earlier].any()
            assert not moved[place, : depth + 1].any()
    assert moved.shape == (generator.num_positions, generator.num_indices)


@pytest.mark.parametrize("name", ["llama", "llama-gqa-qk-norm", "gpt2", "zigzag", "sequence", "stacked"])
def test_sampling_step_by_step_follows_the_logits_of_the_whole(name: str) -> None:
    """Greedy sampling with the cache takes the largest of the teacher-forced logits, everywhere."""
    torch.manual_seed(0)
    generator = KINDS[name]().eval()
    label = torch.tensor([0, 1, 2])
    drawn = generator.generate(label, seeds=torch.zeros(3).long(), temperature=0.0)
    with torch.no_grad():
        logits = generator(drawn, label).logits
    assert torch.equal(logits.argmax(-1), drawn.view(3, generator.num_positions, -1))


def test_cached_logits_equal_those_of_the_whole_sequence() -> None:
    from vq.generators.decoder import KeyValueCache, rotation_by

    torch.manual_seed(0)
    network, x = transformer(num_kv_heads=2).eval(), torch.randn(2, 9, 32)
    turn = rotation_by(torch.randn(9, 4))
    with torch.no_grad():
        whole = network(x, rotation=turn)
        cache = KeyValueCache(network, rows=2, length=9)
        parts = [network(x[:, :3], rotation=turn[:, :3], cache=cache)]
        parts += [network(x[:, i : i + 1], rotation=turn[:, i : i + 1], cache=cache) for i in range(3, 9)]
    torch.testing.assert_close(torch.cat(parts, 1), whole, atol=1e-5, rtol=0)


def test_bad_input_is_refused(generator: Generator) -> None:
    indices, label, seeds = indices_of(generator), torch.zeros(4).long(), torch.zeros(4).long()
    with pytest.raises(ValueError, match=r"label: expected 0 to 3, got 4; the generator has 3 classes"):
        generator.generate(label + 4, seeds=seeds)
    with pytest.raises(
        ValueError,
        match=r"indices: expected 0 to 11, got 12; do the indices come from a different tokenizer\?",
    ):
        generator(indices.clamp(max=0) + 12, label)
    with pytest.raises(ValueError, match="set the generator's grid to that of the tokens"):
        generator(indices[:, :-1], label)
    with pytest.raises(ValueError, match="top_p: expected a number in"):
        generator.generate(label, seeds=seeds, top_p=0.0)


@pytest.mark.parametrize(
    ("name", "millions"), [("B", 111), ("L", 343), ("XL", 775), ("XXL", 1411), ("3B", 3096), ("medium", 328)]
)
def test_the_sizes_are_the_published_ones(name: str, millions: float) -> None:
    vocabulary = 8192 if name == "medium" else 16384
    with torch.device("meta"):
        generator = TransformerGenerator(
            transformer=DecoderTransformer(**LLAMA_SIZES[name]),
            vocabulary_size=vocabulary,
            num_classes=1000,
            grid=(16, 16),
        )
    count = sum(p.numel() for p in generator.parameters()) / 1e6
    assert count == pytest.approx(millions, rel=0.02)


def test_every_position_gives_a_class_without_key_the_score_0() -> None:
    """Then an image depends on the class through the values of the class token alone, however large its embedding."""
    network = transformer(style=LlamaStyle(class_key=False))
    generator = TransformerGenerator(transformer=network, **SHAPE).eval()
    cosine_and_sine = generator.stem.rotation(torch.arange(11))
    assert cosine_and_sine is not None
    assert not cosine_and_sine[:, 0].any()
    other = TransformerGenerator(transformer=transformer(), **SHAPE).eval()
    usual = other.stem.rotation(torch.arange(11))
    assert usual is not None
    assert torch.equal(usual[:, 1:], cosine_and_sine[:, 1:])
    other.load_state_dict(generator.state_dict())
    indices, label = indices_of(generator), torch.tensor([0, 1, 2, 3])
    difference = (
        (generator(indices, label).logits - other(indices, label).logits).abs().flatten(2).amax((0, 2))
    )
    assert difference[0] == 0  # the class token attends to itself alone
    assert difference[1:].min() > 0


def test_a_depth_transformer_without_class_key_is_refused() -> None:
    network = transformer(style=LlamaStyle(class_key=False))
    with pytest.raises(
        ValueError, match="depth_transformer: expected a style with class_key=True, got False"
    ):
        TransformerGenerator(transformer=transformer(), num_indices=2, depth_transformer=network, **SHAPE)


def test_a_grid_of_one_position() -> None:
    generator = TransformerGenerator(transformer=transformer(), **(SHAPE | {"grid": (1, 1)})).eval()
    assert generator(indices_of(generator), torch.tensor([0, 1, 2, 3])).logits.shape == (4, 1, 1, 12)
    assert generator.generate([0, 1], seeds=[0, 1]).shape == (2, 1, 1)
