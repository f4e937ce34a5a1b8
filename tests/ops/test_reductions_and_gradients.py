"""Counting, masked means, replaced values, k-means: against NumPy in float64."""

import numpy as np
import torch
from scipy.cluster.vq import kmeans2

from vq.ops.gradients import replace_value, rotate
from vq.ops.kmeans import k_means
from vq.ops.numerics.reductions import count_and_sum, mean_square, split_counts


def test_counts_and_sums_are_those_of_the_one_hot_product():
    torch.manual_seed(0)
    z, indices, mask = torch.randn(50, 3), torch.randint(7, (50,)), torch.rand(50) > 0.3
    z[~mask] = torch.nan
    counts, sums = split_counts(count_and_sum(z, indices, mask, 7), 7)
    kept = mask.numpy()
    one_hot = np.eye(7)[indices.numpy()[kept]]
    np.testing.assert_array_equal(counts, one_hot.sum(0))
    np.testing.assert_allclose(sums, one_hot.T @ z.double().numpy()[kept], atol=1e-6)


def test_the_mean_square_is_over_unmasked_elements():
    a, b = torch.randn(4, 5, 3), torch.randn(4, 5, 3)
    mask = torch.rand(4, 5) > 0.5
    expected = ((a - b).double().numpy()[mask.numpy()] ** 2).mean()
    np.testing.assert_allclose(mean_square(a, b, mask), expected, rtol=1e-6)
    torch.testing.assert_close(mean_square(a, b), (a - b).square().mean())


def test_the_mean_of_nothing_is_zero_with_a_zero_gradient():
    for shape, mask in [((0, 3), None), ((2, 3), torch.zeros(2, dtype=torch.bool))]:
        a = torch.ones(shape, requires_grad=True)
        loss = mean_square(a, torch.zeros(shape), mask)
        loss.backward()
        assert loss == 0
        assert (a.grad == 0).all()


def test_a_replaced_value_is_exact_where_adding_the_difference_is_not():
    torch.manual_seed(0)
    z, code = torch.randn(1000) * 1e3, torch.randn(1000) * 1e-3
    assert torch.equal(replace_value(z, code), code)
    assert not torch.equal(z + (code - z), code)


def test_rotating_zero_vectors_gives_finite_gradients():
    z = torch.zeros(2, 3, requires_grad=True)
    rotate(z, torch.tensor([[0.0, 0, 0], [1, 2, 3]])).sum().backward()
    assert z.grad.isfinite().all()


def test_rotation_reaches_the_code():
    z, code = torch.randn(20, 5, dtype=torch.float64), torch.randn(20, 5, dtype=torch.float64)
    torch.testing.assert_close(rotate(z, code), code)


def test_lloyd_steps_are_scipys():
    torch.manual_seed(0)
    points = torch.randn(200, 3, dtype=torch.float64)
    generator = torch.Generator().manual_seed(3)
    centres, counts = k_means(points, 9, steps=4, seeding="random", generator=generator)
    seeds = points[torch.randperm(200, generator=torch.Generator().manual_seed(3))[:9]]
    expected, labels = kmeans2(points.numpy(), seeds.numpy(), iter=4, minit="matrix")
    np.testing.assert_allclose(centres, expected, atol=1e-9)
    assert counts.sum() == len(labels)


def test_far_apart_clusters_are_all_found():
    torch.manual_seed(0)
    middles = torch.tensor([[0.0, 0], [100, 0], [0, 100], [100, 100], [50, 500]])
    points = middles.repeat_interleave(40, 0) + torch.randn(200, 2)
    centres, counts = k_means(points, 5)
    assert counts.tolist() == [40] * 5
    assert torch.cdist(middles, centres).min(dim=1).values.max() < 1


def test_seeds_are_drawn_where_no_seed_is_near():
    torch.manual_seed(0)
    middles = 1000 * torch.randn(12, 2)
    points = middles.repeat_interleave(10, 0) + 1e-3 * torch.randn(120, 2)
    for seed in range(5):
        _, counts = k_means(points, 12, steps=0, generator=torch.Generator().manual_seed(seed))
        assert counts.tolist() == [10] * 12


def test_copies_of_vectors_differ_by_a_hundredth_of_each_channels_deviation():
    vectors = torch.tensor([[0.0, 0.0], [200.0, 2.0]])  # standard deviations 100 and 1
    centres, counts = k_means(vectors, 4002, generator=torch.Generator().manual_seed(0))
    assert torch.equal(centres[:2], vectors)
    nearest = torch.cdist(centres[2:], vectors).argmin(1)
    noise = (centres[2:] - vectors[nearest]).double()
    np.testing.assert_allclose(noise.std(dim=0), [1.0, 0.01], rtol=0.05)
    np.testing.assert_allclose(nearest.double().mean(), 0.5, atol=0.05)
    assert counts.sum() == 2
