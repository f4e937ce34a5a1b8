"""The direction of a vector, exact at every length, with a gradient that stays bounded at length 0."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from vq.ops.numerics.precision import at_least_float32

SHORTEST = 1e-6
"""Length below which the gradient of a direction fades; its inverse is the largest factor of a gradient."""


def unit(x: Float[Tensor, "*shape"], dim: int = -1, *, shortest: float = SHORTEST) -> Float[Tensor, "*shape"]:
    """Divides each vector by its length; a vector of zeros stays zero.

    The gradient of a direction, $(I - u u^T) / |x|$, is unbounded near 0, where rounding decides the direction, and
    one such vector would dominate the gradient of a batch. So below the length `shortest` the factor $1 / |x|$ is
    replaced by $|x| / shortest^2$: it is continuous, never above 1 / `shortest`, and 0 at 0.

    The arithmetic is in float32 at least; the result has the dtype of `x`. Neither tiny nor huge values lose their
    direction to squares that underflow or overflow. A vector that is not finite becomes NaN. Differentiable once.

    Args:
        x: Vectors.
        dim: Axis of the vectors.
        shortest: Smallest length at which the gradient is exact; positive.

    Example:
        >>> unit(torch.tensor([[3e-30, 4e-30], [0.0, 0.0]]))
        tensor([[0.6000, 0.8000],
                [0.0000, 0.0000]])
    """
    exact = at_least_float32(x)
    # TorchScript has no functions with a gradient of their own.
    if torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]
        return _direction(exact, dim)[0].to(x.dtype)
    return _Unit.apply(exact, dim, shortest).to(x.dtype)


def length(x: Float[Tensor, "*shape"], dim: int = -1) -> Float[Tensor, "*shape_1"]:
    """Computes the Euclidean length along an axis, which becomes 1 long; without a gradient, and without overflow."""
    scaled, scale = _scaled(x.detach(), dim)
    return torch.linalg.vector_norm(scaled, dim=dim, keepdim=True) / scale


def bounded_inverse(
    length: Float[Tensor, "*shape"], *, shortest: float = SHORTEST
) -> Float[Tensor, "*shape"]:
    """Computes 1 / length, or length / shortest^2 below `shortest`: at most 1 / shortest, and 0 at 0."""
    # Lengths that are too short are clamped before the division, because the gradient of `where` has 0 * inf = NaN.
    return torch.where(length < shortest, length / shortest**2, 1 / length.clamp_min(shortest))


def _scaled(
    x: Float[Tensor, "*shape"], dim: int
) -> tuple[Float[Tensor, "*shape"], Float[Tensor, "*shape_1"]]:
    """Multiplies vectors by a power of two that brings their squares into range, and returns that power too."""
    exponent = 8 if x.dtype == torch.float64 else 1  # the range of exponents, relative to float32
    largest = torch.linalg.vector_norm(x, ord=torch.inf, dim=dim, keepdim=True)
    scale = torch.ones_like(largest)
    scale = scale.masked_fill(largest < 2.0 ** (-40 * exponent), 2.0 ** (88 * exponent))
    scale = scale.masked_fill(largest > 2.0 ** (40 * exponent), 2.0 ** (-88 * exponent))
    return x * scale, scale


def _direction(
    x: Float[Tensor, "*shape"], dim: int
) -> tuple[Float[Tensor, "*shape"], Float[Tensor, "*shape_1"]]:
    """Returns the direction of each vector, and its length."""
    scaled, scale = _scaled(x, dim)
    norm = torch.linalg.vector_norm(scaled, dim=dim, keepdim=True)
    # The length of a vector with a NaN is NaN, not 0.
    return scaled / norm.masked_fill(norm == 0, 1.0), norm / scale


class _Unit(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, dim: int, shortest: float) -> Tensor:
        direction, size = _direction(x, dim)
        ctx.dim = dim
        ctx.save_for_backward(direction, bounded_inverse(size, shortest=shortest))
        return direction

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        direction, factor = ctx.saved_tensors
        across = (grads[0] * direction).sum(dim=ctx.dim, keepdim=True)
        return factor * (grads[0] - across * direction), None, None
