"""The tiled search against a dense one in float64, across tile borders, and with ties."""

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

import vq.ops.distance
from vq.ops.distance import largest_product, nearest_code


def dense(z, codebook):
    return torch.cdist(z.double(), codebook.double(), compute_mode="donot_use_mm_for_euclid_dist").argmin(1)


@settings(deadline=None, max_examples=60)
@given(n=st.integers(0, 70), k=st.integers(1, 300), d=st.integers(1, 9), seed=st.integers(0, 2**20))
def test_equals_the_dense_search(n, k, d, seed):
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(n, d, generator=generator, dtype=torch.float64)
    codebook = torch.randn(k, d, generator=generator, dtype=torch.float64)
    found = nearest_code(z, codebook)
    assert found.dtype == torch.int64
    assert torch.equal(found, dense(z, codebook))


@pytest.mark.parametrize("tile", [(7, 64), (64, 128), (5, 3), (1024, 2048)])
def test_the_tile_does_not_change_the_result(tile, monkeypatch):
    monkeypatch.setattr(vq.ops.distance, "CPU_TILE", tile)
    torch.manual_seed(0)
    z, codebook = torch.randn(150, 6), torch.randn(400, 6)
    assert torch.equal(nearest_code(z, codebook), dense(z, codebook))


def nearly_equal_codes(length):
    """Codes of a given length that differ by less than float32 tells apart in a product with a vector."""
    codes = torch.nn.functional.normalize(torch.randn(8, 1, 6, dtype=torch.float64), dim=2)
    codes = codes + 1e-6 * torch.randn(8, 25, 6, dtype=torch.float64)
    return (length * codes.reshape(200, 6)).float()


@pytest.mark.parametrize("length", [1e-3, 1, 1e3])
def test_rounding_decides_between_no_two_products_or_distances(length):
    codebook = nearly_equal_codes(length)
    z = torch.randn(300, 6)
    products = z.double() @ codebook.double().T
    assert (products.float().argmax(1) != products.argmax(1)).any()  # the digits of float32 are too few
    assert torch.equal(largest_product(z, codebook), products.argmax(1))
    for near in (z * length, codebook[torch.randint(200, (300,))] + 1e-6 * length * z):
        assert torch.equal(nearest_code(near, codebook), dense(near, codebook))


def test_rounding_decides_between_no_two_codes_that_are_far_from_all_vectors():
    directions = torch.nn.functional.normalize(torch.randn(300, 6, dtype=torch.float64), dim=1)
    codebook = torch.cat([directions, -directions * (1 + 1e-7 * torch.rand(300, 1))]).float()
    z = 1e-8 * torch.randn(300, 6)
    naive = codebook.square().sum(1) / 2 - z @ codebook.T
    assert not torch.equal(naive.argmin(1), dense(z, codebook))  # the digits of float32 are too few
    assert torch.equal(nearest_code(z, codebook), dense(z, codebook))


@pytest.mark.parametrize("size", [3, 64, 200, 4500])
def test_of_equal_codes_the_lowest_wins(size):
    assert nearest_code(torch.randn(40, 3), torch.ones(size, 3)).tolist() == [0] * 40
    codebook = torch.ones(size, 3)
    codebook[:2] = 9
    assert nearest_code(torch.ones(40, 3), codebook).tolist() == [2] * 40


def test_vectors_that_are_not_finite_get_an_index_in_range():
    z = torch.tensor([[torch.nan, 0], [torch.inf, 1], [-torch.inf, torch.inf]])
    for size in (3, 128, 2500):
        found = nearest_code(z, torch.randn(size, 2))
        assert found.min() >= 0
        assert found.max() < size


def test_the_operator_is_well_formed():
    z, codebook = torch.randn(5, 2), torch.randn(7, 2)
    torch.library.opcheck(torch.ops.vq.nearest_code.default, (z, codebook))


def test_no_tensor_of_vectors_times_codes_is_made():
    z, codebook = torch.randn(4096, 2), torch.randn(8192, 2)
    with torch.profiler.profile(profile_memory=True, acc_events=True) as profile:
        nearest_code(z, codebook)
    largest = max(event.self_cpu_memory_usage for event in profile.key_averages())
    assert largest < 4096 * 8192 * 4 / 8


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_equals_the_dense_search_on_a_gpu():
    z, codebook = torch.randn(5000, 16, device="cuda"), torch.randn(9000, 16, device="cuda")
    agree = (nearest_code(z, codebook) == dense(z, codebook)).double().mean()
    assert agree > 0.999
