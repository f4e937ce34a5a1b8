"""The tiled search against a dense one in float64, across tile borders, and with ties."""

import itertools

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

import vq.ops.distance
from vq.ops.distance import largest_product, nearest_code, nearest_codes


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


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("offset", [0, 8])
def test_halves_are_compared_in_float32(dtype, offset):
    z, codebook = ((torch.randn(n, 6) + offset).to(dtype) for n in (300, 3000))
    products = z.double() @ codebook.double().T
    half = codebook.square().sum(1) / 2 - z @ codebook.T
    assert not torch.equal(half.argmin(1), dense(z, codebook))  # its own digits are too few
    assert torch.equal(nearest_code(z, codebook), dense(z, codebook))
    assert torch.equal(nearest_codes(z, codebook, 3), nearest_codes(z.float(), codebook.float(), 3))
    assert torch.equal(products.gather(1, largest_product(z, codebook)[:, None])[:, 0], products.amax(1))


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


@pytest.mark.parametrize("count", [1, 2, 7])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_several_nearest_codes_are_those_of_the_sorted_distances(count, dtype, monkeypatch):
    torch.manual_seed(0)
    z, codebook = torch.randn(200, 3, dtype=dtype) + 50, torch.randn(30, 3, dtype=dtype) + 50
    expected = torch.cdist(z.double(), codebook.double()).argsort(dim=1)[:, :count]
    assert torch.equal(nearest_codes(z, codebook, count), expected)
    monkeypatch.setattr(vq.ops.distance, "CPU_TILE", (4, 64))
    assert torch.equal(nearest_codes(z, codebook, count), expected)
    assert nearest_codes(z[:0], codebook, count).shape == (0, count)
    assert nearest_codes(torch.full((2, 3), torch.nan, dtype=dtype), codebook, count).max() < 30


def test_the_operator_of_several_nearest_codes_is_well_formed():
    torch.library.opcheck(torch.ops.vq.nearest_codes.default, (torch.randn(5, 2), torch.randn(7, 2), 3))


def test_no_tensor_of_vectors_times_codes_is_made():
    z, codebook = torch.randn(4096, 2), torch.randn(8192, 2)
    with torch.profiler.profile(profile_memory=True, acc_events=True) as profile:
        nearest_code(z, codebook)
    largest = max(event.self_cpu_memory_usage for event in profile.key_averages())
    assert largest < 4096 * 8192 * 4 / 8


def peak_memory(n, size):
    """The most bytes that one search holds at a time."""
    z, codebook = torch.randn(n, 4), torch.randn(size, 4)
    with torch.profiler.profile(profile_memory=True, acc_events=True) as profile:
        nearest_code(z, codebook)
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    events.sort(key=lambda e: e.start_ns())
    return max(itertools.accumulate(e.nbytes() for e in events))


def test_memory_is_linear_in_the_vectors_and_constant_in_the_codes():
    once, twice, thrice = (peak_memory(n, 128) for n in (2**16, 2**17, 3 * 2**16))
    per_vector = (twice - once) / 2**16
    assert 8 <= per_vector <= 64  # the index, scores and bounds of a vector
    assert abs((thrice - twice) / 2**16 - per_vector) <= 4
    assert abs(peak_memory(256, 16_384) - peak_memory(256, 4096)) <= 2**16


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_equals_the_dense_search_on_a_gpu():
    z, codebook = torch.randn(5000, 16, device="cuda"), torch.randn(9000, 16, device="cuda")
    agree = (nearest_code(z, codebook) == dense(z, codebook)).double().mean()
    assert agree > 0.999
