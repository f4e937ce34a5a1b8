"""Regularisers of a codebook: values against float64 NumPy, bounds and masks."""

import math

import numpy as np
import pytest
import torch
from scipy.special import softmax
from scipy.stats import entropy

from vq.quantizers import EntropyRegulariser, OrthogonalRegulariser
from vq.quantizers.parts.regularisers import bit_entropies, softmax_entropies


def test_entropy_regulariser_equals_the_equation():
    generator = np.random.default_rng(0)
    z, codes = generator.normal(size=(50, 3)), generator.normal(size=(9, 3))
    p = softmax(-((z[:, None] - codes) ** 2).sum(-1) / 0.5, axis=1)
    expected = 0.2 * (entropy(p, axis=1).mean() - 1.5 * entropy(p.mean(0)))
    loss, metrics = EntropyRegulariser(weight=0.2, diversity_weight=1.5, temperature=0.5)(
        torch.from_numpy(z), torch.from_numpy(codes), torch.zeros(50, dtype=torch.int64), across_ranks=False
    )
    assert loss.item() == pytest.approx(expected)
    assert metrics["codebook_entropy"].item() == pytest.approx(entropy(p.mean(0)))


def test_entropy_is_lowest_for_decided_choices_used_evenly():
    codes = 100 * torch.eye(4)
    loss, _ = EntropyRegulariser(weight=1.0)(codes, codes, torch.arange(4), across_ranks=False)
    assert loss.item() == pytest.approx(-math.log(4))


def test_masked_vectors_do_not_count_and_get_no_gradient():
    z = torch.randn(10, 3, requires_grad=True)
    codes, mask = torch.randn(5, 3), torch.arange(10) < 6
    some = softmax_entropies(z, codes, torch.zeros(5), mask, across_ranks=False)
    torch.testing.assert_close(some, softmax_entropies(z[:6], codes, torch.zeros(5), across_ranks=False))
    (some.sample + some.codebook).backward()
    assert z.grad[6:].abs().sum() == 0
    bits = bit_entropies(z, mask, group_bits=2, across_ranks=False)
    torch.testing.assert_close(bits, bit_entropies(z[:6], group_bits=2, across_ranks=False))


def test_orthogonal_regulariser_counts_the_used_codes_only_if_told():
    codes = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]], requires_grad=True)
    z, indices = torch.zeros(4, 2), torch.tensor([0, 1, 1, 2])
    mask = torch.tensor([True, True, True, False])
    loss, _ = OrthogonalRegulariser(weight=2.0, only_used=True)(z, codes, indices, mask, across_ranks=False)
    assert loss.item() == pytest.approx(0, abs=1e-6)
    loss, metrics = OrthogonalRegulariser(weight=2.0)(z, codes, indices, mask, across_ranks=False)
    assert loss.item() == pytest.approx(2 * ((3 + 4 * 0.5) / 9 - 1 / 3))
    assert metrics["orthogonality"].item() == pytest.approx(loss.item() / 2)
    loss.backward()
    assert codes.grad.abs().sum() > 0
