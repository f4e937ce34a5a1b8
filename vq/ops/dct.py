"""The orthonormal discrete cosine transform of real signals, as one product with a fixed matrix per axis."""

import math

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor


def dct_matrix(size: int, *, like: Float[Tensor, "..."] | None = None) -> Float[Tensor, "{size} {size}"]:
    """Returns the orthonormal matrix C of the DCT-II: C @ x are the coefficients of x, and C.T is the inverse of C.

    C[k, n] = sqrt(2 / size) cos(pi (2 n + 1) k / (2 size)), and sqrt(1 / size) for k = 0.

    Args:
        size: Number of samples of a signal.
        like: Tensor that gives the dtype and the device; None is float32 on the CPU.

    Raises:
        ValueError: If `size` is below 1.

    Example:
        >>> torch.allclose(dct_matrix(8) @ dct_matrix(8).T, torch.eye(8), atol=1e-6)
        True
    """
    if size < 1:
        raise ValueError(f"dct_matrix: expected a size of at least 1, got {size}")
    device, dtype = (None, torch.float32) if like is None else (like.device, like.dtype)
    sample = torch.arange(size, device=device, dtype=torch.float64)
    # The product is an integer, so taking it modulo the period before the cosine is exact at any size.
    angle = torch.outer(sample, 2 * sample + 1) % (4 * size) * (math.pi / (2 * size))
    matrix = angle.cos() * math.sqrt(2 / size)
    matrix[0] = math.sqrt(1 / size)
    return matrix.to(dtype)


def dct(x: Float[Tensor, "*lead n"]) -> Float[Tensor, "*lead n"]:
    """Transforms signals along the last axis to their coefficients (DCT-II), the lowest frequency first.

    It computes in float32 at least, also inside autocast; the result has the dtype of `x`.
    """
    return _along_last(x, inverse=False)


def idct(x: Float[Tensor, "*lead n"]) -> Float[Tensor, "*lead n"]:
    """Transforms coefficients along the last axis to their signals (DCT-III): the inverse of `dct`."""
    return _along_last(x, inverse=True)


def dct2(x: Float[Tensor, "*lead h w"]) -> Float[Tensor, "*lead h w"]:
    """Transforms images over the last two axes to their coefficients; [0, 0] is sqrt(h * w) times the mean."""
    return dct(dct(x).transpose(-1, -2)).transpose(-1, -2)


def idct2(x: Float[Tensor, "*lead h w"]) -> Float[Tensor, "*lead h w"]:
    """Transforms coefficients over the last two axes to their images: the inverse of `dct2`."""
    return idct(idct(x).transpose(-1, -2)).transpose(-1, -2)


def block_dct2(x: Float[Tensor, "*lead h w"], size: int) -> Float[Tensor, "*lead h w"]:
    """Transforms each block of `size` x `size` pixels to its coefficients, which replace the pixels of the block.

    Raises:
        ValueError: If `size` does not divide height and width.
    """
    return _from_blocks(dct2(_blocks(x, size)))


def block_idct2(x: Float[Tensor, "*lead h w"], size: int) -> Float[Tensor, "*lead h w"]:
    """Transforms the coefficients of each block to pixels: the inverse of `block_dct2`.

    Raises:
        ValueError: If `size` does not divide height and width.
    """
    return _from_blocks(idct2(_blocks(x, size)))


def zigzag(
    rows: int, columns: int, device: torch.device | str | None = None
) -> Int[Tensor, "{rows}*{columns}"]:
    """Returns the positions of a grid (row * columns + column) in JPEG's order, from low to high frequency.

    `flat[..., zigzag(h, w)]` puts a flattened grid into this order; `inverse_permutation` undoes it.

    Example:
        >>> zigzag(3, 3).tolist()
        [0, 1, 3, 6, 4, 2, 5, 7, 8]
    """
    row = torch.arange(rows, device=device)[:, None]
    column = torch.arange(columns, device=device)[None]
    diagonal = row + column
    # Odd diagonals run downwards, even ones upwards.
    along = torch.where(diagonal % 2 == 1, row, column)
    return (diagonal * max(rows, columns) + along).flatten().argsort()


def inverse_permutation(order: Int[Tensor, "n"]) -> Int[Tensor, "n"]:
    """Returns the permutation that undoes `order`: `x[order][inverse_permutation(order)]` is x.

    Example:
        >>> inverse_permutation(torch.tensor([2, 0, 1])).tolist()
        [1, 2, 0]
    """
    return order.argsort()


def _along_last(x: Float[Tensor, "*lead n"], *, inverse: bool) -> Float[Tensor, "*lead n"]:
    with torch.autocast(x.device.type, enabled=False):
        exact = x if x.dtype == torch.float64 else x.float()
        matrix = dct_matrix(x.shape[-1], like=exact)
        return (exact @ (matrix if inverse else matrix.T)).to(x.dtype)


def _blocks(x: Shaped[Tensor, "*lead h w"], size: int) -> Shaped[Tensor, "*lead rows columns {size} {size}"]:
    height, width = x.shape[-2:]
    if size < 1 or height % size or width % size:
        raise ValueError(
            f"block_dct2: expected a height and width that are multiples of the block size, got {height}x{width} "
            f"and {size}"
        )
    blocks = x.reshape(*x.shape[:-2], height // size, size, width // size, size)
    return blocks.transpose(-2, -3)


def _from_blocks(x: Shaped[Tensor, "*lead rows columns s s"]) -> Shaped[Tensor, "*lead h w"]:
    return x.transpose(-2, -3).flatten(-4, -3).flatten(-2, -1)
