"""Which places MaskGIT keeps after a pass: the surest under the model itself, whatever the temperature."""

from typing import Any

import pytest
import torch
from torch import Tensor

from vq.generators import DecoderTransformer, MaskedGenerator

PLACES, CODES, STEPS = 8, 8, 4


class Recorder(MaskedGenerator):
    """Gives fixed logits and remembers which places were still masked in each pass."""

    def __init__(self, logits: Tensor, choice_temperature: float = 0.0) -> None:
        super().__init__(
            transformer=DecoderTransformer(width=16, depth=1, num_heads=2),
            vocabulary_size=CODES,
            num_classes=2,
            grid=(2, 4),
            num_steps=STEPS,
            choice_temperature=choice_temperature,
        )
        self.fixed = logits
        self.masked: list[list[bool]] = []

    def _logits(self, indices: Tensor, label: Tensor) -> Tensor:
        self.masked.append((indices[0, :, 0] == CODES).tolist())
        return self.fixed.expand(len(indices), -1, -1)

    def kept(self, **settings: Any) -> list[set[int]]:
        self.masked.clear()
        self.generate(torch.tensor([0]), seeds=torch.tensor([1]), **settings)
        return [{i for i, masked in enumerate(step) if not masked} for step in self.masked]


def peaked(heights: list[float]) -> Tensor:
    logits = torch.zeros(1, PLACES, CODES)
    logits[0, :, 3] = torch.tensor(heights)
    return logits


def surest_first(order: list[int]) -> list[set[int]]:
    """The share cos(pi s / 8) of eight places is masked after pass s: 7, 5 and 3 of them."""
    return [set(), set(order[:1]), set(order[:3]), set(order[:5])]


SETTINGS: list[dict[str, Any]] = [
    {"temperature": 1.0},
    {"temperature": 1e-3},
    {"temperature": 1e-40},
    {"temperature": 0.0},
    {"top_k": 1},
    {"top_p": 1e-6},
    {"temperature": 0.0, "guidance": 3.0},
    {"ranges": [(2, 8)]},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_the_surest_places_are_kept_whatever_the_settings_of_the_draw(settings: dict[str, Any]) -> None:
    # Every draw is index 3: the next one has a probability below 1e-12.
    generator = Recorder(peaked([50.0, 30, 31, 33, 36, 40, 45, 48]))
    assert generator.kept(**settings) == surest_first([0, 7, 6, 5, 4, 3, 2, 1])


def test_confidences_whose_probability_rounds_to_one_are_told_apart() -> None:
    generator = Recorder(peaked([100.0, 60, 61, 300, 400, 70, 65, 200]))
    assert generator.kept(temperature=0.0) == surest_first([4, 3, 7, 0, 5, 6, 2, 1])


@pytest.mark.parametrize("height", [0.0, 5.0, 900.0])
def test_equally_sure_places_are_kept_in_raster_order(height: float) -> None:
    generator = Recorder(peaked([height] * PLACES))
    assert generator.kept(temperature=0.0) == surest_first(list(range(PLACES)))


def test_noise_moves_the_choice() -> None:
    heights = [9.0, 1, 2, 3, 4, 5, 6, 7]
    noisy, plain = Recorder(peaked(heights), choice_temperature=1e6), Recorder(peaked(heights))
    assert noisy.kept(temperature=0.0) != plain.kept(temperature=0.0)
