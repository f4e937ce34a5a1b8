r"""The direction of a vector: its value at every length, and a gradient that stays bounded at length 0."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from vq.ops.numerics.precision import at_least_float32

SHORTEST = 1e-6
"""The length below which the gradient of a direction fades; 1 over it is the largest factor of a gradient."""


def unit(x: Float[Tensor, "*shape"], dim: int = -1, *, shortest: float = SHORTEST) -> Float[Tensor, "*shape"]:
    r"""Each vector divided by its length, at any length that is not 0; a vector of zeros stays one.

    The gradient of a direction, $(I - u u^T) / |x|$, has no bound near 0, where the direction is decided by
    rounding, and one such vector would drown all others. So below the length `shortest` the factor
    $1 / |x|$ is replaced by $|x| / shortest^2$: it is continuous, never above 1 / `shortest`, and 0 at 0.

    In float32 at least; the result has the dtype of `x`. Neither tiny nor huge values lose their direction to
    squares that underflow or overflow. Where a vector is not finite, the result is NaN. Differentiable once.

    Args:
        x: The vectors.
        dim: Their axis.
        shortest: The length from which on the gradient is exact; positive.

    Example:
        >>> unit(torch.tensor([[3e-30, 4e-30], [0.0, 0.0]]))
        tensor([[0.6000, 0.8000],
                [0.0000, 0.0000]])
    """
    direction: Tensor = _Unit.apply(at_least_float32(x), dim, shortest)  # type: ignore[no-untyped-call]
    return direction.to(x.dtype)


def length(x: Float[Tensor, "*shape"], dim: int = -1) -> Float[Tensor, "*shape_1"]:
    """The Euclidean length along an axis, which stays as one entry; without a gradient, and without overflow."""
    scaled, scale = _scaled(x.detach(), dim)
    norm: Tensor = torch.linalg.vector_norm(scaled, dim=dim, keepdim=True) / scale
    return norm


def bounded_inverse(
    length: Float[Tensor, "*shape"], *, shortest: float = SHORTEST
) -> Float[Tensor, "*shape"]:
    """1 / length, and length / shortest^2 below `shortest`: at most 1 / shortest, and 0 at 0."""
    # No quotient is made of what is too short, because 0 * inf is NaN.
    return torch.where(length < shortest, length / shortest**2, 1 / length.clamp_min(shortest))


def _scaled(x: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Vectors times a power of two whose squares are in range, and that power; 1 at ordinary lengths."""
    exponent = 8 if x.dtype == torch.float64 else 1  # how many times as wide as float32 the exponents are
    largest = torch.linalg.vector_norm(x, ord=torch.inf, dim=dim, keepdim=True)
    scale = torch.ones_like(largest)
    scale = scale.masked_fill(largest < 2.0 ** (-40 * exponent), 2.0 ** (88 * exponent))
    scale = scale.masked_fill(largest > 2.0 ** (40 * exponent), 2.0 ** (-88 * exponent))
    return x * scale, scale


class _Unit(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, dim: int, shortest: float) -> Tensor:
        scaled, scale = _scaled(x, dim)
        norm = torch.linalg.vector_norm(scaled, dim=dim, keepdim=True)
        # A NaN in a vector makes its length NaN, which is not 0.
        direction = scaled / norm.masked_fill(norm == 0, 1.0)
        ctx.dim = dim
        ctx.save_for_backward(direction, bounded_inverse(norm / scale, shortest=shortest))
        return direction  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        direction, factor = ctx.saved_tensors
        across = (grads[0] * direction).sum(dim=ctx.dim, keepdim=True)
        return factor * (grads[0] - across * direction), None, None
