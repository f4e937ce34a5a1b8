"""Draws from logits: the right distribution, without sorting the vocabulary."""

import pytest
import torch

from vq.generators.sampling import (
    ConstantGuidance,
    CosineGuidance,
    LinearGuidance,
    NotFiniteLogitsError,
    Sampler,
    uniform_numbers,
)


def sampler(**changes: object) -> Sampler:
    return Sampler(**({"guidance": ConstantGuidance(1.0)} | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "settings",
    [{}, {"top_k": 3}, {"top_p": 0.7}, {"top_k": 4, "top_p": 0.8}, {"temperature": 0.5, "top_k": 5}],
)
def test_frequencies_are_those_of_a_plain_filter(settings: dict[str, float]) -> None:
    logits = torch.tensor([1.0, 3.0, 0.5, 2.0, 2.5, -1.0], dtype=torch.float64)
    scaled = logits / settings.get("temperature", 1.0)
    allowed = torch.zeros(6, dtype=torch.bool)
    allowed[scaled.argsort(descending=True)[: int(settings.get("top_k", 6))]] = True
    mass = scaled.masked_fill(~allowed, -torch.inf).softmax(0)
    ordered = mass.argsort(descending=True)
    before = mass[ordered].cumsum(0) - mass[ordered]
    mass[ordered[before >= settings.get("top_p", 1.0)]] = 0
    expected = mass / mass.sum()
    count = 20_000
    uniform = (torch.arange(count).double() + 0.5) / count  # every part of [0, 1) equally often
    rows = logits.float().expand(count, -1)
    index = sampler(**settings).pick(rows, uniform)
    found = index.bincount(minlength=6) / count
    torch.testing.assert_close(found.double(), expected, atol=2e-4, rtol=0)
    own = logits.float().double().log_softmax(0)[index]  # whatever the settings of the draw
    torch.testing.assert_close(sampler(**settings).confidence(rows, index), own, atol=1e-12, rtol=0)


def test_temperature_zero_takes_the_likeliest() -> None:
    index = sampler(temperature=0.0).pick(torch.tensor([[0.0, 2.0, 1.0]]), torch.tensor([0.99]))
    assert index.item() == 1


def test_guidance_moves_along_the_line_between_both_logits() -> None:
    rows = torch.tensor([[1.0, 0.0], [0.0, 1.0]])  # with the class, without
    assert sampler(guidance=ConstantGuidance(3.0)).guided(rows, 0.0).tolist() == [[3.0, -2.0]]
    for kind in (LinearGuidance, CosineGuidance):
        guidance = kind(3.0)
        assert guidance.at(0.0) == 1.0
        assert guidance.at(0.5) == pytest.approx(2.0)
        assert guidance.at(0.999) == pytest.approx(3.0, abs=0.01)
    assert ConstantGuidance(2.0, start=0.2, end=0.6).at(0.1) == 1.0


def test_uniform_numbers_are_uniform_and_each_its_own() -> None:
    numbers = uniform_numbers(torch.arange(200), 100)
    assert numbers.min() >= 0
    assert numbers.max() < 1
    histogram = torch.histc(numbers.float(), 20, 0, 1)
    assert (histogram - 1000).abs().max() < 150
    assert numbers.flatten().unique().numel() == 20_000
    assert torch.corrcoef(numbers[:2])[0, 1].abs() < 0.35
    assert not torch.equal(numbers, uniform_numbers(torch.arange(200), 100, stream=1))


def splitmix(number: int) -> int:
    """The finalizer of SplitMix64 in whole numbers without a sign, as the paper has it."""
    number = (number ^ number >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    number = (number ^ number >> 27) * 0x94D049BB133111EB % 2**64
    return number ^ number >> 31


def test_uniform_numbers_are_those_of_splitmix64() -> None:
    golden = 0x9E3779B97F4A7C15
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423]  # of the seed 1234567
    assert [splitmix((1234567 + k * golden) % 2**64) for k in (1, 2, 3)] == published
    seeds = [0, 7, -1, 2**63 - 1, -(2**63)]
    for stream in (0, 3):
        starts = [splitmix(seed % 2**64) + stream * 0xD1B54A32D192ED03 for seed in seeds]
        states = [[(splitmix(start % 2**64) + k * golden) % 2**64 for k in (1, 2, 3)] for start in starts]
        expected = [[(splitmix(state) >> 11) / 2**53 for state in row] for row in states]
        assert uniform_numbers(torch.tensor(seeds), 3, stream).tolist() == expected


def test_top_p_looks_at_as_many_indices_as_its_mass_needs() -> None:
    """Thousands of nearly equally likely indices, more than are looked at first."""
    logits = torch.linspace(1e-3, 0, 5000)
    uniform = torch.linspace(0, 1, 101, dtype=torch.float64)[:-1] + 0.005
    index = sampler(top_p=0.9).pick(logits.expand(100, -1), uniform)
    below = logits.double().softmax(0).cumsum(0)
    below = below[: int((below < 0.9).sum()) + 1]
    assert torch.equal(index, torch.searchsorted(below, uniform * below[-1], right=True))


def test_top_k_of_the_whole_vocabulary_changes_no_draw() -> None:
    logits, uniform = torch.randn(50, 6), torch.rand(50)
    for settings in ({}, {"top_p": 0.7}):
        every = sampler(top_k=6, **settings).pick(logits, uniform)
        assert torch.equal(every, sampler(**settings).pick(logits, uniform))


def test_what_cannot_be_drawn_is_named_by_picture_and_place() -> None:
    logits = torch.zeros(3, 4, 5)
    logits[1, 2, 0] = torch.nan
    with pytest.raises(NotFiniteLogitsError, match=r"got NaN for \w+ 1 of the batch at \w+ 2, index 0"):
        sampler().pick(logits, torch.zeros(3, 4))
    with pytest.raises(NotFiniteLogitsError, match=r"got NaN for \w+ 1 of the batch at \w+ 6, index 3"):
        sampler().pick(logits[:, 2], torch.zeros(3), place=6, depth=3)
