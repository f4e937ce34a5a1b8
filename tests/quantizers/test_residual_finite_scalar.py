"""Residual FSQ: nested grids, against float64 NumPy."""

import numpy as np
import pytest
import torch

from vq.quantizers import ResidualFiniteScalarQuantizer

LEVELS = np.array([5, 4, 3])


def in_numpy(z, depth):
    """Returns the sums after each stage and the digits: the nearest of L levels, L times finer in each stage."""
    bound = LEVELS / (LEVELS - 1)
    y = bound * np.tanh(z / bound)
    total, sums, digits = np.zeros_like(y), [], []
    for k in range(depth):
        scale = LEVELS ** -float(k)
        grids = [np.linspace(-1, 1, n) for n in LEVELS]
        digit = np.stack(
            [np.abs(((y - total) / scale)[:, c, None] - grid).argmin(1) for c, grid in enumerate(grids)],
            axis=1,
        )
        total = total + scale * (digit * 2 / (LEVELS - 1) - 1)
        digits.append(digit)
        sums.append(total)
    return y, sums, digits


def test_stages_are_the_nearest_levels_of_what_is_left():
    z = 2 * torch.randn(2000, 3)
    quantizer = ResidualFiniteScalarQuantizer(levels=LEVELS.tolist(), depth=3)
    out = quantizer(z)
    y, sums, digits = in_numpy(z.double().numpy(), 3)
    np.testing.assert_allclose(out.quantized, sums[-1], atol=1e-6)
    np.testing.assert_array_equal(out.indices, np.stack([d @ [1, 5, 20] for d in digits], axis=1))
    for depth, total in enumerate(sums, start=1):
        np.testing.assert_allclose(quantizer.decode_prefix(out.indices, depth), total, atol=1e-6)
        error = np.abs(y - total).max(axis=0)
        assert (error <= LEVELS ** (1.0 - depth) / (LEVELS - 1) + 1e-6).all()


def test_all_codes_are_different_and_evenly_spaced():
    quantizer = ResidualFiniteScalarQuantizer(levels=[4], depth=3)
    indices = torch.cartesian_prod(*[torch.arange(4)] * 3)
    codes = quantizer.decode(indices)[:, 0].sort().values
    torch.testing.assert_close(codes, torch.linspace(-21 / 16, 21 / 16, 64), atol=1e-6, rtol=0)
    # The atanh of each code, quantized again, is that code: every code is reached.
    z = 4 / 3 * torch.atanh(quantizer.decode(indices) * 3 / 4)
    assert torch.equal(quantizer.encode(z), indices)


def test_the_gradient_is_that_of_the_bound():
    z = torch.randn(10, 3, dtype=torch.float64, requires_grad=True)
    ResidualFiniteScalarQuantizer(levels=[5, 4, 3], depth=2)(z).quantized.sum().backward()
    bound = LEVELS / (LEVELS - 1)
    np.testing.assert_allclose(z.grad, 1 - np.tanh(z.detach().numpy() / bound) ** 2)


def test_invalid_arguments_raise():
    with pytest.raises(ValueError, match="expected levels of at least 3"):
        ResidualFiniteScalarQuantizer(levels=[2, 5], depth=2)
    with pytest.raises(ValueError, match="expected a depth of at least 1, got 0"):
        ResidualFiniteScalarQuantizer(levels=[5], depth=0)
    quantizer = ResidualFiniteScalarQuantizer(levels=[5], depth=2)
    with pytest.raises(ValueError, match=r"expected a depth in \[1, 2\], got 3"):
        quantizer.decode_prefix(torch.zeros(1, 2, dtype=torch.int64), 3)


def test_one_stage_is_the_first_of_several():
    one, two = (ResidualFiniteScalarQuantizer(levels=[5, 4, 3], depth=depth).eval() for depth in (1, 2))
    z = torch.randn(50, 3)
    indices = two.encode(z)
    assert torch.equal(one.encode(z), indices[:, :1])
    assert torch.equal(one(z).quantized, two.decode_prefix(indices, 1))
