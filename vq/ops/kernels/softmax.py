"""Sums of softmax distributions over many codes, and their gradients, in Triton, without a (vectors x codes) tensor.

The functions compute what `vq.ops.entropy.softmax_sums` says. Each pass streams tiles of scores through shared memory:
one pass over the codes for each block of vectors (normaliser and entropy, with running maximum and sums), and one pass
over the vectors for each block of codes (what is summed for each code).
"""

from typing import Any

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor

from vq.ops.kernels.tiles import LEAST_DEPTH, products

_ROWS, _COLUMNS, _DEPTH = 32, 64, 64


def softmax_sums(
    z: Float[Tensor, "n dim"],
    codes: Float[Tensor, "size dim"],
    bias: Float[Tensor, "size"],
    weight: Float[Tensor, "n"],
) -> tuple[Float[Tensor, ""], Float[Tensor, "size"]]:
    """Computes the sums over vectors of the entropy and of the distribution of softmax(z e_k + b_k).

    Args:
        z: Vectors in float32, contiguous.
        codes: Codes in float32, contiguous.
        bias: Numbers added to the scores of each code.
        weight: Weight of each vector in the sums.
    """
    normaliser, entropy = _normalisers(z, codes, bias)
    distribution = torch.zeros_like(bias)
    if len(z):
        blocks = triton.cdiv(len(codes), _COLUMNS)
        _distribution[(blocks,)](
            z, codes, bias, weight, normaliser, distribution, len(z), len(codes), **_tile(z)
        )
    return weight @ entropy, distribution


def softmax_sums_backward(
    grads: Float[Tensor, "size_and_one"],
    z: Float[Tensor, "n dim"],
    codes: Float[Tensor, "size dim"],
    bias: Float[Tensor, "size"],
    weight: Float[Tensor, "n"],
) -> tuple[Float[Tensor, "n dim"], Float[Tensor, "size dim"], Float[Tensor, "size"]]:
    """Computes the gradients of `softmax_sums` in the vectors, the codes and the bias.

    Args:
        grads: The gradient of the loss in the sum of entropies, followed by those in the sum of distributions.
        z: As for `softmax_sums`.
        codes: As for `softmax_sums`.
        bias: As for `softmax_sums`.
        weight: As for `softmax_sums`.
    """
    n, size = len(z), len(codes)
    z_grad, codes_grad, bias_grad = torch.zeros_like(z), torch.zeros_like(codes), torch.zeros_like(bias)
    if n == 0:
        return z_grad, codes_grad, bias_grad
    normaliser, _ = _normalisers(z, codes, bias)
    mean = torch.empty_like(weight)
    settings = _tile(z)
    # In channels of one block of codes, because a block of all channels would not fit into registers.
    channels = (triton.cdiv(z.shape[1], settings["depth"]),)
    rows = (triton.cdiv(n, _ROWS),)
    _mean_direction[rows](z, codes, bias, grads, normaliser, mean, n, size, **settings)
    _vector_gradient[rows + channels](
        z, codes, bias, weight, grads, normaliser, mean, z_grad, n, size, **settings
    )
    _code_gradient[(triton.cdiv(size, _COLUMNS), *channels)](
        z, codes, bias, weight, grads, normaliser, mean, codes_grad, bias_grad, n, size, **settings
    )
    return z_grad, codes_grad, bias_grad


def _normalisers(
    z: Float[Tensor, "n dim"], codes: Float[Tensor, "size dim"], bias: Float[Tensor, "size"]
) -> tuple[Float[Tensor, "n"], Float[Tensor, "n"]]:
    """Computes the log of the normaliser, and the entropy, of each vector's distribution."""
    normaliser, entropy = (torch.empty(len(z), dtype=torch.float32, device=z.device) for _ in range(2))
    if len(z):
        blocks = triton.cdiv(len(z), _ROWS)
        _normaliser[(blocks,)](z, codes, bias, normaliser, entropy, len(z), len(codes), **_tile(z))
    return normaliser, entropy


def _tile(z: Float[Tensor, "n dim"]) -> dict[str, int]:
    depth = min(_DEPTH, max(LEAST_DEPTH, triton.next_power_of_2(z.shape[1])))
    return {"dim": z.shape[1], "rows": _ROWS, "columns": _COLUMNS, "depth": depth, "num_warps": 4}


@triton.jit
def _scores(  # noqa: PLR0917  # a kernel takes its arguments by position
    z: Any,
    codes: Any,
    bias: Any,
    row: Any,
    column: Any,
    n: Any,
    size: Any,
    dim: tl.constexpr,
    rows: tl.constexpr,
    columns: tl.constexpr,
    depth: tl.constexpr,
) -> Any:
    """Computes a tile of scores; those of columns past the end are minus infinity."""
    found = products(z, codes, row, column, n, size, dim, rows, columns, depth)
    return found + tl.load(bias + column, mask=column < size, other=float("-inf"))[None, :]


@triton.jit
def _normaliser(  # noqa: PLR0917
    z: Any,
    codes: Any,
    bias: Any,
    normaliser: Any,
    entropy: Any,
    n: Any,
    size: Any,
    dim: tl.constexpr,
    rows: tl.constexpr,
    columns: tl.constexpr,
    depth: tl.constexpr,
) -> None:
    """Writes log sum exp(s), and the entropy, of some vectors, with a running maximum and running sums."""
    row = tl.program_id(0) * rows + tl.arange(0, rows)
    highest = tl.full((rows,), float("-inf"), tl.float32)
    total = tl.zeros((rows,), tl.float32)
    weighted = tl.zeros((rows,), tl.float32)  # sum of (s - highest) exp(s - highest)
    for start in range(0, size, columns):
        column = start + tl.arange(0, columns)
        scores = _scores(z, codes, bias, row, column, n, size, dim, rows, columns, depth)
        new = tl.maximum(highest, tl.max(scores, axis=1))
        shift = tl.where(highest == float("-inf"), 0.0, highest - new)  # there is nothing to rescale at first
        rescaled = tl.exp(shift)
        weighted = (weighted + shift * total) * rescaled
        total = total * rescaled
        above = tl.where(column[None, :] < size, scores - new[:, None], 0.0)
        exponentials = tl.where(column[None, :] < size, tl.exp(above), 0.0)
        total += tl.sum(exponentials, axis=1)
        weighted += tl.sum(above * exponentials, axis=1)
        highest = new
    tl.store(normaliser + row, highest + tl.log(total), mask=row < n)
    tl.store(entropy + row, tl.log(total) - weighted / total, mask=row < n)


@triton.jit
def _distribution(  # noqa: PLR0917
    z: Any,
    codes: Any,
    bias: Any,
    weight: Any,
    normaliser: Any,
    distribution: Any,
    n: Any,
    size: Any,
    dim: tl.constexpr,
    rows: tl.constexpr,
    columns: tl.constexpr,
    depth: tl.constexpr,
) -> None:
    """Writes the sum over all vectors of the weighted probabilities of some codes."""
    column = tl.program_id(0) * columns + tl.arange(0, columns)
    total = tl.zeros((columns,), tl.float32)
    for start in range(0, n, rows):
        row = start + tl.arange(0, rows)
        scores = _scores(z, codes, bias, row, column, n, size, dim, rows, columns, depth)
        log_normaliser = tl.load(normaliser + row, mask=row < n, other=0.0)
        weights = tl.load(weight + row, mask=row < n, other=0.0)
        total += tl.sum(tl.exp(scores - log_normaliser[:, None]) * weights[:, None], axis=0)
    tl.store(distribution + column, total, mask=column < size)


@triton.jit
def _directions(scores: Any, grads: Any, log_normaliser: Any, column: Any, size: Any) -> Any:
    """Computes probabilities and the derivative of the loss in them, up to a constant of each vector."""
    is_code = column[None, :] < size
    log_probability = tl.where(is_code, scores - log_normaliser[:, None], 0.0)
    probabilities = tl.where(is_code, tl.exp(log_probability), 0.0)
    of_entropy = tl.load(grads)
    of_distribution = tl.load(grads + 1 + column, mask=column < size, other=0.0)
    return probabilities, of_distribution[None, :] - of_entropy * log_probability


@triton.jit
def _mean_direction(  # noqa: PLR0917
    z: Any,
    codes: Any,
    bias: Any,
    grads: Any,
    normaliser: Any,
    mean: Any,
    n: Any,
    size: Any,
    dim: tl.constexpr,
    rows: tl.constexpr,
    columns: tl.constexpr,
    depth: tl.constexpr,
) -> None:
    """Writes the expected direction of some vectors, which the gradient of a softmax subtracts."""
    row = tl.program_id(0) * rows + tl.arange(0, rows)
    log_normaliser = tl.load(normaliser + row, mask=row < n, other=0.0)
    total = tl.zeros((rows,), tl.float32)
    for start in range(0, size, columns):
        column = start + tl.arange(0, columns)
        scores = _scores(z, codes, bias, row, column, n, size, dim, rows, columns, depth)
        probabilities, directions = _directions(scores, grads, log_normaliser, column, size)
        total += tl.sum(probabilities * directions, axis=1)
    tl.store(mean + row, total, mask=row < n)


@triton.jit
def _vector_gradient(  # noqa: PLR0917
    z: Any,
    codes: Any,
    bias: Any,
    weight: Any,
    grads: Any,
    normaliser: Any,
    mean: Any,
    z_grad: Any,
    n: Any,
    size: Any,
    dim: tl.constexpr,
    rows: tl.constexpr,
    columns: tl.constexpr,
    depth: tl.constexpr,
) -> None:
    """Writes some channels of the gradient in some vectors."""
    row = tl.program_id(0) * rows + tl.arange(0, rows)
    channel = tl.program_id(1) * depth + tl.arange(0, depth)
    log_normaliser = tl.load(normaliser + row, mask=row < n, other=0.0)
    weights = tl.load(weight + row, mask=row < n, other=0.0)
    means = tl.load(mean + row, mask=row < n, other=0.0)
    total = tl.zeros((rows, depth), tl.float32)
    for start in range(0, size, columns):
        column = start + tl.arange(0, columns)
        scores = _scores(z, codes, bias, row, column, n, size, dim, rows, columns, depth)
        probabilities, directions = _directions(scores, grads, log_normaliser, column, size)
        gradient = probabilities * (directions - means[:, None]) * weights[:, None]
        some_codes = tl.load(
            codes + column[:, None].to(tl.int64) * dim + channel[None, :],
            mask=(column[:, None] < size) & (channel[None, :] < dim),
            other=0.0,
        )
        total = tl.dot(gradient, some_codes, total, input_precision="ieee")
    place = row[:, None].to(tl.int64) * dim + channel[None, :]
    tl.store(z_grad + place, total, mask=(row[:, None] < n) & (channel[None, :] < dim))


@triton.jit
def _code_gradient(  # noqa: PLR0917
    z: Any,
    codes: Any,
    bias: Any,
    weight: Any,
    grads: Any,
    normaliser: Any,
    mean: Any,
    codes_grad: Any,
    bias_grad: Any,
    n: Any,
    size: Any,
    dim: tl.constexpr,
    rows: tl.constexpr,
    columns: tl.constexpr,
    depth: tl.constexpr,
) -> None:
    """Writes some channels of the gradient in some codes; the first channels' programs write that of the bias."""
    column = tl.program_id(0) * columns + tl.arange(0, columns)
    channel = tl.program_id(1) * depth + tl.arange(0, depth)
    total = tl.zeros((columns, depth), tl.float32)
    of_bias = tl.zeros((columns,), tl.float32)
    for start in range(0, n, rows):
        row = start + tl.arange(0, rows)
        scores = _scores(z, codes, bias, row, column, n, size, dim, rows, columns, depth)
        log_normaliser = tl.load(normaliser + row, mask=row < n, other=0.0)
        weights = tl.load(weight + row, mask=row < n, other=0.0)
        means = tl.load(mean + row, mask=row < n, other=0.0)
        probabilities, directions = _directions(scores, grads, log_normaliser, column, size)
        gradient = probabilities * (directions - means[:, None]) * weights[:, None]
        some_z = tl.load(
            z + row[:, None].to(tl.int64) * dim + channel[None, :],
            mask=(row[:, None] < n) & (channel[None, :] < dim),
            other=0.0,
        )
        total = tl.dot(tl.trans(gradient), some_z, total, input_precision="ieee")
        of_bias += tl.sum(gradient, axis=0)
    place = column[:, None].to(tl.int64) * dim + channel[None, :]
    tl.store(codes_grad + place, total, mask=(column[:, None] < size) & (channel[None, :] < dim))
    if tl.program_id(1) == 0:
        tl.store(bias_grad + column, of_bias, mask=column < size)
