"""Draws from logits: the right distribution, without sorting the vocabulary."""

import pytest
import torch

from vq.generators.sampling import ConstantGuidance, CosineGuidance, LinearGuidance, Sampler, uniform_numbers


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
    index, log_probability = sampler(**settings).pick(logits.float().expand(count, -1), uniform)
    found = index.bincount(minlength=6) / count
    torch.testing.assert_close(found.double(), expected, atol=2e-4, rtol=0)
    own = logits.float().double().log_softmax(0)[index]  # whatever the settings of the draw
    torch.testing.assert_close(log_probability, own, atol=1e-12, rtol=0)


def test_temperature_zero_takes_the_likeliest() -> None:
    index, _ = sampler(temperature=0.0).pick(torch.tensor([[0.0, 2.0, 1.0]]), torch.tensor([0.99]))
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
