"""Labels, seeds, indices and prefixes of any integer type give the same samples; all else is refused by name."""

from typing import Any

import pytest
import torch
from test_generators import KINDS, SHAPE, indices_of, transformer

from vq.generators import PixelCNNGenerator, TransformerGenerator

INTEGERS = [torch.uint8, torch.uint16, torch.uint32, torch.uint64, torch.int8, torch.int16, torch.int32]
OTHERS = [torch.float32, torch.float64, torch.bool]


@pytest.mark.parametrize("kind", INTEGERS)
@pytest.mark.parametrize("name", ["llama", "stacked", "masked", "pixelcnn"])
def test_every_integer_type_is_the_same_number(name: str, kind: torch.dtype) -> None:
    generator = KINDS[name]().eval()
    label, seeds, indices = torch.tensor([0, 3]), torch.tensor([5, 6]), indices_of(generator, 2)
    prefix = indices.flatten(1, len(generator.grid))[:, :2]
    expected = generator.generate(label, seeds=seeds, prefix=prefix)
    found = generator.generate(label.to(kind), seeds=seeds.to(kind), prefix=prefix.to(kind))
    assert torch.equal(found, expected)
    assert torch.equal(generator.generate([0, 3], seeds=[5, 6], prefix=prefix), expected)
    loss = generator(indices, label).loss
    assert torch.equal(generator(indices.to(kind), label.to(kind)).loss, loss)


def test_labels_beyond_one_byte_are_not_cut_off() -> None:
    generator = TransformerGenerator(transformer=transformer(), **(SHAPE | {"num_classes": 300})).eval()
    wide = generator.generate([257], seeds=[0])
    assert torch.equal(wide, generator.generate(torch.tensor([257], dtype=torch.int16), seeds=[0]))


def test_every_seed_of_64_bits_counts() -> None:
    generator = KINDS["llama"]().eval()
    seeds = [0, 1, -1, 2**31, 2**32, -(2**63), 2**63 - 1]
    drawn = generator.generate([1] * len(seeds), seeds=seeds)
    assert len({tuple(one.flatten().tolist()) for one in drawn}) == len(seeds)
    for bad in (2**63, -(2**63) - 1, 1.0, True):
        with pytest.raises(ValueError, match=r"seeds: expected (numbers from|integers)"):
            generator.generate([1], seeds=[bad])


@pytest.mark.parametrize("kind", OTHERS)
@pytest.mark.parametrize("name", KINDS)
def test_floats_and_booleans_are_refused(name: str, kind: torch.dtype) -> None:
    generator = KINDS[name]().eval()
    indices, one = indices_of(generator, 1), torch.ones(1)
    prefix = indices.flatten(1, len(generator.grid))[:, :1].to(kind)
    calls: list[tuple[str, Any]] = [
        ("label", lambda: generator.generate(one.to(kind), seeds=[0])),
        ("seeds", lambda: generator.generate([0], seeds=one.to(kind))),
        ("prefix", lambda: generator.generate([0], seeds=[0], prefix=prefix)),
        ("label", lambda: generator(indices, one.to(kind))),
        ("indices", lambda: generator(indices.to(kind), one.long())),
    ]
    for what, call in calls:
        with pytest.raises(ValueError, match=f"{what}: expected integers, got a tensor of {kind}"):
            call()


@pytest.mark.parametrize("bad", [-1, 4, 2**40])
def test_a_class_out_of_range_is_refused_with_the_count(bad: int) -> None:
    with pytest.raises(ValueError, match=rf"label: expected 0 to 3, got {bad}; the generator has 3 classes"):
        KINDS["llama"]().generate([bad], seeds=[0])


@pytest.mark.parametrize("name", ["vocabulary_size", "num_classes"])
@pytest.mark.parametrize("bad", [8.0, True, "8"])
def test_counts_are_whole_numbers(name: str, bad: Any) -> None:
    with pytest.raises((ValueError, TypeError), match=r"expected integers, got|Type-check"):
        PixelCNNGenerator(width=8, depth=1, **(SHAPE | {name: bad}))
