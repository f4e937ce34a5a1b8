"""Orthogonality against the equation on the (size, size) matrix."""

import numpy as np
import pytest
import torch

from vq.ops.orthogonality import orthogonality


def test_equals_the_equation_on_the_matrix_of_all_pairs():
    codes = np.random.default_rng(0).normal(size=(12, 5))
    unit = codes / np.linalg.norm(codes, axis=1, keepdims=True)
    expected = ((unit @ unit.T) ** 2).sum() / 12**2 - 1 / 12
    assert orthogonality(torch.from_numpy(codes)).item() == pytest.approx(expected)


def test_only_the_counted_codes_count():
    codes, counted = torch.randn(12, 5, dtype=torch.float64), torch.arange(12) % 3 > 0
    torch.testing.assert_close(orthogonality(codes, counted), orthogonality(codes[counted]))
    assert orthogonality(codes, torch.zeros(12, dtype=torch.bool)) == 0


def test_it_is_0_for_orthogonal_codes_and_largest_for_equal_ones():
    assert orthogonality(3 * torch.eye(4)).item() == 0
    assert orthogonality(torch.ones(4, 2)).item() == pytest.approx(1 - 1 / 4)
