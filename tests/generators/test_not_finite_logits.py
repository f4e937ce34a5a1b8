"""Logits that cannot be drawn from are an error that names where; minus infinity and tiny temperatures are not."""

from typing import Any

import pytest
import torch
from test_generators import KINDS

from vq.errors import UserError
from vq.generators import Generator
from vq.generators.sampling import ConstantGuidance, NotFiniteLogitsError, Sampler, log_probability

INF, NAN = float("inf"), float("nan")
SETTINGS: list[dict[str, Any]] = [
    {},
    {"temperature": 0.0},
    {"temperature": 1e-40},
    {"top_k": 2},
    {"top_p": 0.5},
    {"top_k": 3, "top_p": 0.5},
]


def sampler(**changes: Any) -> Sampler:
    return Sampler(**({"guidance": ConstantGuidance(1.0)} | changes))


def pick(logits: list[float], **changes: Any) -> int:
    return int(sampler(**changes).pick(torch.tensor([logits]), torch.tensor([0.7])))


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize(
    ("logits", "what"),
    [
        ([1.0, NAN, 0.0, 2.0], "NaN"),
        ([0.0, 0.0, INF, INF], "plus infinity"),
        ([-INF] * 4, "only minus infinity"),
        ([-INF, NAN, -INF, -INF], "NaN"),
        ([NAN] * 4, "NaN"),
    ],
)
def test_logits_without_a_distribution_are_refused(
    settings: dict[str, Any], logits: list[float], what: str
) -> None:
    with pytest.raises(
        NotFiniteLogitsError, match=f"got {what} for image 1 of the batch at position 7, index 2"
    ):
        sampler(**settings).pick(
            torch.tensor([[0.0] * 4, logits]), torch.tensor([0.1, 0.2]), place=7, depth=2
        )
    assert issubclass(NotFiniteLogitsError, UserError)


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_minus_infinity_excludes_an_index(settings: dict[str, Any]) -> None:
    assert pick([-INF, -INF, 0.5, -INF], **settings) == 2
    assert pick([0.0, -INF, 60.0, -INF], **settings) == 2


@pytest.mark.parametrize("temperature", [0.0, 5e-324, 1e-300, 1e-40, 1e-30])
@pytest.mark.parametrize("settings", [{}, {"top_k": 3}, {"top_p": 0.99}, {"top_k": 3, "top_p": 0.9}], ids=str)
def test_a_tiny_temperature_is_greedy(temperature: float, settings: dict[str, Any]) -> None:
    assert pick([1.0, 30.0, 5.0, -3.0], temperature=temperature, **settings) == 1
    assert pick([-3e38, 3e38, 0.0, -INF], temperature=temperature, **settings) == 1


def test_equally_likely_indices_go_to_the_first_when_greedy() -> None:
    assert pick([0.0, 2.0, 2.0, 1.0], temperature=0.0) == 1


@pytest.mark.parametrize("scale", [0.5, 0.8, 1.0, 2.0, 7.5])
def test_guidance_keeps_what_the_class_excludes(scale: float) -> None:
    rows = torch.tensor([[-INF, 1.0, -INF, 2.0], [-INF, 0.0, 3.0, 1.0]])
    guided = sampler(guidance=ConstantGuidance(scale)).guided(rows[: 1 if scale == 1 else 2], 0.0)
    expected = torch.lerp(torch.tensor([0.0, 1.0]), torch.tensor([1.0, 2.0]), scale)
    assert guided[0, [0, 2]].tolist() == [-INF, -INF]
    torch.testing.assert_close(guided[0, [1, 3]], expected)


def test_guidance_of_zero_is_the_unconditional_model() -> None:
    rows = torch.tensor([[-INF, 1.0], [0.5, 0.0]])
    assert sampler(guidance=ConstantGuidance(0.0)).guided(rows, 0.0).tolist() == [[0.5, 0.0]]


def test_guidance_that_overflows_is_refused() -> None:
    guiding = sampler(guidance=ConstantGuidance(3.0))
    guided = guiding.guided(torch.tensor([[3e38, 0.0], [-3e38, 0.0]]), 0.0)
    with pytest.raises(NotFiniteLogitsError, match="got plus infinity for image 0"):
        guiding.pick(guided, torch.tensor([0.5]))


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("guidance", [1.0, 2.0])
@pytest.mark.parametrize("name", KINDS)
def test_a_generator_of_nan_weights_draws_nothing(
    name: str, guidance: float, settings: dict[str, Any]
) -> None:
    generator = KINDS[name]().eval()
    with torch.no_grad():
        next(generator.parameters()).fill_(NAN)
    with pytest.raises(NotFiniteLogitsError, match=r"got NaN for image 0 .* weights are not finite"):
        generator.generate(torch.tensor([0, 1]), seeds=torch.tensor([0, 1]), guidance=guidance, **settings)


@pytest.mark.parametrize("name", ["llama", "stacked", "masked", "pixelcnn"])
def test_the_place_and_the_index_are_named(name: str) -> None:
    """Only the last place, or the last index of a place, has NaN."""
    generator: Generator = KINDS[name]().eval()
    wanted = r"at position \d+, index \d of the position"
    with torch.no_grad():
        if name == "stacked":
            generator.head.logits[2].fill_(NAN)  # type: ignore[union-attr, index, operator]
            wanted = "at position 0, index 2 of the position"
        elif name == "pixelcnn":
            generator.logits.bias[3] = NAN  # type: ignore[union-attr, index]
            wanted = "at position 0, index 0"
        elif name == "masked":
            generator.head.logits.weight[3] = NAN  # type: ignore[union-attr, index]
            wanted = "for image 0 of the batch at position 0, index 0"
        else:
            generator.stem.tables.weight.fill_(NAN)  # type: ignore[union-attr, operator]
            wanted = "at position 1, index 0"  # the class stands first
    with pytest.raises(NotFiniteLogitsError, match=wanted):
        generator.generate(torch.tensor([0, 1]), seeds=torch.tensor([0, 1]))


def test_log_probabilities_keep_their_digits_where_the_probability_is_one() -> None:
    gaps = torch.tensor([10.0, 30.0, 50.0, 100.0, 700.0], dtype=torch.float64)
    logits = torch.stack([gaps, torch.zeros(5, dtype=torch.float64)], dim=1)
    found = log_probability(logits, torch.zeros(5, dtype=torch.long))
    assert (found.diff() > 0).all()
    torch.testing.assert_close(found, -torch.log1p((-gaps).exp()), rtol=1e-12, atol=0)
    unlikely = log_probability(logits, torch.ones(5, dtype=torch.long))
    torch.testing.assert_close(unlikely, -gaps - torch.log1p((-gaps).exp()), rtol=1e-12, atol=0)
    assert log_probability(torch.tensor([[4.0]]), torch.tensor([0])).item() == 0
