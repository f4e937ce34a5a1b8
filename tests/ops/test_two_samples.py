"""KID, precision and recall, and the Inception Score, from their equations and against torch-fidelity."""

import itertools

import numpy as np
import pytest
import torch

from vq.ops.two_samples import inception_score, kernel_distance, kernel_distances, precision_and_recall


def features(count: int, seed: int, dim: int = 12) -> torch.Tensor:
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed)) + 0.3 * seed


def test_kernel_distance_from_the_equation():
    x, y = features(5, 0).double().numpy(), features(7, 1).double().numpy()

    def kernel(a: np.ndarray, b: np.ndarray) -> float:
        return float((a @ b / 12 + 1) ** 3)

    xx = sum(kernel(a, b) for a, b in itertools.permutations(x, 2)) / (5 * 4)
    yy = sum(kernel(a, b) for a, b in itertools.permutations(y, 2)) / (7 * 6)
    xy = sum(kernel(a, b) for a in x for b in y) / (5 * 7)
    found = kernel_distance(torch.from_numpy(x), torch.from_numpy(y)).item()
    assert found == pytest.approx(xx + yy - 2 * xy, rel=1e-12)


def test_kernel_distances_are_torch_fidelitys():
    fidelity = pytest.importorskip("torch_fidelity.metric_kid")
    x, y = features(60, 0), features(50, 1)
    wanted = fidelity.kid_features_to_metric(
        x, y, kid_subsets=20, kid_subset_size=30, rng_seed=2020, kid_kernel="poly", kid_kernel_poly_degree=3,
        kid_kernel_poly_gamma=None, kid_kernel_poly_coef0=1, verbose=False,
    )  # fmt: skip
    found = kernel_distances(x, y, num_subsets=20, subset_size=30, seed=2020)
    assert found.mean().item() == pytest.approx(wanted["kernel_inception_distance_mean"], rel=1e-4)
    assert found.std(correction=0).item() == pytest.approx(wanted["kernel_inception_distance_std"], rel=1e-4)


@pytest.mark.parametrize("neighbours", [1, 3])
def test_precision_and_recall_from_the_definition(neighbours):
    generated, real = features(30, 0).numpy() * 0.8, features(25, 1).numpy()

    def share(points: np.ndarray, members: np.ndarray) -> float:
        distance = np.linalg.norm(members[:, None] - members[None], axis=2)
        radii = np.sort(distance, axis=1)[:, neighbours]
        return float((np.linalg.norm(points[:, None] - members[None], axis=2) <= radii).any(axis=1).mean())

    wanted = share(generated, real), share(real, generated)
    found = precision_and_recall(torch.from_numpy(generated), torch.from_numpy(real), neighbours=neighbours)
    assert tuple(x.item() for x in found) == pytest.approx(wanted)
    assert 0 < wanted[0] < 1


def test_precision_and_recall_are_torch_fidelitys():
    fidelity = pytest.importorskip("torch_fidelity.metric_prc")
    generated, real = features(80, 0) * 0.7, features(90, 1)
    wanted = fidelity.calculate_precision_recall_full(generated, real)
    found = precision_and_recall(generated, real)
    assert tuple(x.item() for x in found) == pytest.approx(wanted, abs=1e-6)


def test_a_collapsed_generator_is_precise_but_recalls_little():
    real = features(200, 0)
    precision, recall = precision_and_recall(real[:1] + 1e-3 * features(200, 2), real)
    assert precision.item() == 1
    assert recall.item() < 0.1


def test_inception_score_is_torch_fidelitys():
    fidelity = pytest.importorskip("torch_fidelity.metric_isc")
    logits = 3 * features(70, 0)
    wanted = fidelity.isc_features_to_metric(logits, splits=1)
    assert inception_score(logits).item() == pytest.approx(wanted["inception_score_mean"], rel=1e-9)


def test_inception_score_at_its_ends():
    assert inception_score(torch.zeros(5, 8)).item() == pytest.approx(1)
    assert inception_score(100 * torch.eye(8)).item() == pytest.approx(8)
