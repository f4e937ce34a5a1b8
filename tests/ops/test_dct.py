"""The cosine transform against SciPy in float64, and the order of its coefficients."""

import numpy as np
import pytest
import torch
from scipy import fft

from vq.ops.dct import (
    block_dct2,
    block_idct2,
    dct,
    dct2,
    dct_matrix,
    idct,
    idct2,
    inverse_permutation,
    zigzag,
)


def signal(*shape: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=dtype)


@pytest.mark.parametrize("size", [1, 2, 7, 8, 64, 250])
def test_equals_scipy(size):
    x = signal(3, size)
    np.testing.assert_allclose(dct(x), fft.dct(x.numpy(), norm="ortho"), atol=1e-12)
    np.testing.assert_allclose(idct(x), fft.idct(x.numpy(), norm="ortho"), atol=1e-12)
    picture = signal(2, size, 5)
    np.testing.assert_allclose(
        dct2(picture), fft.dctn(picture.numpy(), axes=(1, 2), norm="ortho"), atol=1e-12
    )
    np.testing.assert_allclose(
        idct2(picture), fft.idctn(picture.numpy(), axes=(1, 2), norm="ortho"), atol=1e-12
    )


def test_blocks_equal_scipy_on_each_block():
    x = signal(2, 12, 8)
    found = block_dct2(x, 4)
    for top in range(0, 12, 4):
        for left in range(0, 8, 4):
            block = x[:, top : top + 4, left : left + 4].numpy()
            wanted = fft.dctn(block, axes=(1, 2), norm="ortho")
            np.testing.assert_allclose(found[:, top : top + 4, left : left + 4], wanted, atol=1e-12)
    torch.testing.assert_close(block_idct2(found, 4), x)


def test_keeps_lengths():
    x = signal(4, 32, 48, dtype=torch.float32)
    torch.testing.assert_close(dct2(x).square().sum(), x.square().sum())


def test_a_constant_picture_is_its_mean():
    found = dct2(torch.full((6, 10), 0.5))
    assert found[0, 0].item() == pytest.approx(0.5 * 60**0.5)
    assert found.flatten()[1:].abs().max() < 1e-6


def test_bfloat16_is_computed_in_float32():
    x = signal(256, dtype=torch.float32).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        found = dct(x)
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, dct(x.float()).bfloat16())


def test_gradient():
    assert torch.autograd.gradcheck(dct2, (signal(2, 3, 4).requires_grad_(),))


class TestZigzag:
    def test_order_of_jpeg(self):
        wanted = [0, 1, 4, 8, 5, 2, 3, 6, 9, 12, 13, 10, 7, 11, 14, 15]
        assert zigzag(4, 4).tolist() == wanted

    @pytest.mark.parametrize(("rows", "columns"), [(1, 1), (1, 7), (5, 1), (3, 8), (9, 4), (16, 16)])
    def test_is_a_permutation_that_walks_to_neighbours(self, rows, columns):
        order = zigzag(rows, columns)
        assert sorted(order.tolist()) == list(range(rows * columns))
        place = torch.stack([order // columns, order % columns])
        steps = place.diff(dim=1)
        assert (steps.sum(dim=0).abs() <= 1).all(), "the sum of both frequencies never jumps"
        x = torch.arange(rows * columns)
        assert torch.equal(x[order][inverse_permutation(order)], x)


def test_errors():
    with pytest.raises(ValueError, match="dct_matrix: expected a size of at least 1, got 0"):
        dct_matrix(0)
    with pytest.raises(ValueError, match=r"multiples of the block size, got 6x8 and 4"):
        block_dct2(torch.zeros(6, 8), 4)
