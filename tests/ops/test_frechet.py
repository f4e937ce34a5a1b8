"""The Fréchet distance against closed forms, SciPy and the features themselves."""

import time

import numpy as np
import pytest
import scipy.linalg
import torch

from vq.ops import frechet
from vq.ops.frechet import frechet_distance, frechet_distance_of_features, moments


def features(count: int, dim: int, seed: int) -> torch.Tensor:
    """Returns correlated features whose variances span four orders of magnitude."""
    draws = torch.Generator().manual_seed(seed)
    scale = torch.logspace(0, -2, dim, dtype=torch.float64)
    mix = torch.linalg.qr(torch.randn(dim, dim, generator=torch.Generator().manual_seed(9)).double())[0]
    return torch.randn(count, dim, generator=draws).double() * scale @ mix + 0.1 * seed


def gaussian(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return moments(x.sum(dim=0), x.T @ x, len(x))


def test_moments_are_numpys():
    x = features(50, 7, 0)
    mean, covariance = gaussian(x)
    assert mean.numpy() == pytest.approx(x.numpy().mean(axis=0), abs=1e-14)
    assert covariance.numpy() == pytest.approx(np.cov(x.numpy(), rowvar=False), abs=1e-14)


def test_closed_form_of_diagonal_covariances():
    a, b = torch.tensor([1.0, 4.0, 9.0]), torch.tensor([4.0, 0.25, 9.0])
    found = frechet_distance(torch.ones(3), a.diag(), torch.zeros(3), b.diag())
    assert found.dtype == torch.float64
    assert found.item() == pytest.approx(3 + (1 + 2.25 + 0), abs=1e-12)


def test_equals_scipy():
    x, y = features(400, 24, 0), features(300, 24, 1)
    (mean_x, cov_x), (mean_y, cov_y) = gaussian(x), gaussian(y)
    root = scipy.linalg.sqrtm((cov_x @ cov_y).numpy())
    wanted = float(((mean_x - mean_y) ** 2).sum() + cov_x.trace() + cov_y.trace()) - 2 * np.trace(root).real
    assert frechet_distance(mean_x, cov_x, mean_y, cov_y).item() == pytest.approx(wanted, abs=1e-9)


@pytest.mark.parametrize("count", [200, 40, 7, 2])  # more vectors than the 48 dimensions, and fewer
def test_equals_the_features_own_distance_at_every_rank(count):
    x, y = features(count, 48, 0), features(count + 3, 48, 1)
    found = frechet_distance(*gaussian(x), *gaussian(y))
    assert found.item() == pytest.approx(frechet_distance_of_features(x, y).item(), abs=1e-10)


@pytest.mark.parametrize("count", [200, 40, 2])
def test_of_a_set_to_itself_is_0(count):
    x = features(count, 48, 0)
    assert abs(frechet_distance(*gaussian(x), *gaussian(x)).item()) < 1e-8
    assert abs(frechet_distance_of_features(x, x).item()) < 1e-8


def test_one_side_singular():
    x, y = features(200, 48, 0), features(20, 48, 1)
    wanted = frechet_distance_of_features(x, y).item()
    assert frechet_distance(*gaussian(x), *gaussian(y)).item() == pytest.approx(wanted, abs=1e-7)
    assert frechet_distance(*gaussian(y), *gaussian(x)).item() == pytest.approx(wanted, abs=1e-7)


def test_zero_covariances():
    zero = torch.zeros(3, 3)
    assert frechet_distance(torch.ones(3), zero, torch.zeros(3), zero).item() == 3


@pytest.mark.parametrize("scale", [1e-5, 1e5])
def test_scaled_features_scale_the_distance_where_covariances_are_singular(scale):
    a, b = features(5, 12, 0), features(6, 12, 1)
    expected = scale**2 * frechet_distance_of_features(a, b).item()
    found = frechet_distance(*gaussian(scale * a), *gaussian(scale * b)).item()
    assert found == pytest.approx(expected, rel=1e-9)


def test_badly_conditioned_covariances_leave_the_quick_way(monkeypatch):
    """A matrix with eigenvalues from 1 to 1e-14 has a Cholesky factor, but the roots from it are wrong by 1e-9."""
    values = torch.logspace(0, -14, 48, dtype=torch.float64)
    mix = torch.linalg.qr(torch.randn(48, 48).double())[0]
    covariance = (mix * values) @ mix.T
    zero = torch.zeros(48)
    used = []
    slow = frechet._root_by_eigenvectors
    monkeypatch.setattr(frechet, "_root_by_eigenvectors", lambda a, b: used.append(1) or slow(a, b))
    assert abs(frechet_distance(zero, covariance, zero, covariance).item()) < 1e-10
    assert used == [1]
    healthy = torch.eye(48).double()
    frechet_distance(zero, healthy, zero, healthy)
    assert used == [1]


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_what_is_not_finite_gives_nan(value):
    mean = torch.tensor([0.0, value])
    assert torch.isnan(frechet_distance(mean, torch.eye(2), torch.zeros(2), torch.eye(2)))


def test_five_images_in_many_dimensions_are_quick_and_exact() -> None:
    """On the rounding errors of such covariances eigh takes half a minute or does not converge."""
    draws = torch.Generator().manual_seed(0)
    x = torch.rand(5, 1280, dtype=torch.float64, generator=draws)
    y = x + 0.1 * torch.randn(5, 1280, dtype=torch.float64, generator=draws)
    sides = [moments(v.sum(0), v.T @ v, len(v)) for v in (x, y)]
    start = time.process_time()
    found = frechet_distance(*sides[0], *sides[1]).item()
    assert time.process_time() - start < 10
    assert found == pytest.approx(frechet_distance_of_features(x, y).item(), rel=1e-10)
    assert abs(frechet_distance(*sides[0], *sides[0]).item()) < 1e-8
