"""Values of the schedules of DALL-E and wav2vec 2.0 at given steps."""

import pytest

from vq.quantizers import CosineAnnealing, GeometricAnnealing, LinearAnnealing


def test_dall_e_temperature():
    temperature = CosineAnnealing(first=1.0, last=1 / 16, steps=150_000)
    values = [temperature.at(step) for step in (0, 37_500, 75_000, 150_000, 10**9)]
    assert values == pytest.approx([1, 1 / 16 + 15 / 16 * (1 + 0.5**0.5) / 2, 17 / 32, 1 / 16, 1 / 16])


def test_dall_e_weight_of_the_divergence():
    weight = LinearAnnealing(first=0.0, last=6.6, steps=5000)
    assert [weight.at(step) for step in (0, 2500, 5000, 9999)] == pytest.approx([0, 3.3, 6.6, 6.6])


def test_wav2vec_temperature():
    temperature = GeometricAnnealing(first=2.0, last=0.5, factor=0.999995)
    assert temperature.at(0) == 2
    assert temperature.at(100_000) == pytest.approx(2 * 0.999995**100_000)
    assert temperature.at(10**6) == 0.5


@pytest.mark.parametrize("kind", [CosineAnnealing, LinearAnnealing])
def test_no_steps_are_refused(kind):
    with pytest.raises(ValueError, match=f"{kind.__name__}: expected at least 1 step, got 0"):
        kind(first=1.0, last=0.0, steps=0)


def test_a_factor_that_does_not_shrink_is_refused():
    with pytest.raises(ValueError, match=r"GeometricAnnealing: expected a factor in \(0, 1\), got 1\.0"):
        GeometricAnnealing(first=1.0, last=0.0, factor=1.0)
