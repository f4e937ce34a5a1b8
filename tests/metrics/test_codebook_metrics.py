"""Codebook usage and perplexity, compared with NumPy."""

import numpy as np
import pytest
import torch

from vq.metrics import CodebookUsage, Perplexity
from vq.metrics.codebook import count_codes, entropy


def score(metric, *batches: torch.Tensor) -> dict[str, float]:
    for indices in batches:
        picture = torch.zeros(len(indices), 3, 4, 4)
        metric.update(image=picture, reconstruction=picture, indices=indices)
    return metric.compute()


def skewed(*shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return (torch.rand(shape, generator=generator).pow(3) * 97).long()


@pytest.mark.parametrize("shape", [(6, 16), (6, 4, 4), (6, 4, 4, 3)])
def test_equal_numpy(shape):
    indices = skewed(*shape)
    counts = np.bincount(indices.numpy().ravel(), minlength=100)
    p = counts[counts > 0] / counts.sum()
    nats = -(p * np.log(p)).sum()
    assert score(CodebookUsage(codebook_size=100), indices) == {
        "codebook_usage": pytest.approx((counts > 0).mean())
    }
    assert score(Perplexity(codebook_size=100), indices) == {
        "perplexity": pytest.approx(np.exp(nats), rel=1e-12),
        "entropy_bits": pytest.approx(nats / np.log(2), rel=1e-12),
        "bits_per_pixel": pytest.approx(nats / np.log(2) * indices[0].numel() / 16, rel=1e-12),
    }


def test_levels_have_their_own_numbers():
    """One of two levels uses two codes evenly, the other one a single code; together they use three."""
    indices = torch.stack([torch.arange(8) % 2, torch.full((8,), 5)], dim=1).reshape(4, 2, 2)
    assert score(CodebookUsage(codebook_size=8, levels=2), indices) == {
        "codebook_usage": 3 / 8, "codebook_usage_0": 2 / 8, "codebook_usage_1": 1 / 8,
    }  # fmt: skip
    found = score(Perplexity(codebook_size=8, levels=2), indices)
    assert found == pytest.approx({
        "perplexity": 2 ** 1.5, "entropy_bits": 1.5, "bits_per_pixel": 8 / 64,
        "perplexity_0": 2, "entropy_bits_0": 1, "perplexity_1": 1, "entropy_bits_1": 0,
    })  # fmt: skip


def test_over_the_set_not_over_batches():
    batches = torch.arange(8).reshape(8, 1, 1).expand(8, 2, 2)
    assert score(Perplexity(codebook_size=8), *batches.split(1))["perplexity"] == pytest.approx(8)
    assert score(CodebookUsage(codebook_size=8), *batches.split(1))["codebook_usage"] == 1


@pytest.mark.parametrize(("code", "usage"), [(0, 1 / 16), (15, 1 / 16)])
def test_one_code(code, usage):
    indices = torch.full((2, 3), code)
    assert score(CodebookUsage(codebook_size=16), indices) == {"codebook_usage": usage}
    assert score(Perplexity(codebook_size=16), indices) == {
        "perplexity": 1, "entropy_bits": 0, "bits_per_pixel": 0,
    }  # fmt: skip


def test_counts_are_exact_integers():
    counts = count_codes(torch.tensor([3, 3, 0]), codebook_size=4)
    assert counts.dtype == torch.int64
    assert counts.tolist() == [1, 0, 0, 2, 0]


def test_entropy_of_no_counts_is_0():
    assert entropy(torch.zeros(4, dtype=torch.int64)).item() == 0


@pytest.mark.parametrize("metric", [CodebookUsage, Perplexity])
class TestErrors:
    @pytest.mark.parametrize("stranger", [16, -1])
    def test_index_out_of_range(self, metric, stranger):
        message = (
            rf"{metric.__name__}: expected indices in \[0, 16\), got 2 out of range; give the codebook_size"
        )
        with pytest.raises(ValueError, match=message):
            score(metric(codebook_size=16), torch.tensor([[3, stranger, stranger]]))

    def test_codebook_size(self, metric):
        with pytest.raises(
            ValueError, match=f"{metric.__name__}: expected a codebook_size of at least 1, got 0"
        ):
            metric(codebook_size=0)

    def test_levels(self, metric):
        with pytest.raises(ValueError, match=f"{metric.__name__}: expected at least 1 level, got 0"):
            metric(codebook_size=4, levels=0)

    def test_levels_of_the_indices(self, metric):
        message = rf"{metric.__name__}: expected indices whose last axis is 3 levels, got \(2, 4\)"
        with pytest.raises(ValueError, match=message):
            score(metric(codebook_size=4, levels=3), torch.zeros(2, 4, dtype=torch.int64))
