"""Values from one tensor, gradients from another: the building blocks of gradient estimators."""

from jaxtyping import Float
from torch import Tensor

from vq.ops.directions import SHORTEST, bounded_inverse, length, unit


def replace_value(
    carrier: Float[Tensor, "*shape"], value: Float[Tensor, "*shape"]
) -> Float[Tensor, "*shape"]:
    """Returns the value of `value`, bit for bit, with the gradient of `carrier`.

    The usual `carrier + (value - carrier).detach()` rounds and so differs from the code in some bits; here
    exactly zero is added. Where `carrier` is NaN or infinite the result is NaN, so that invalid input is visible.

    Example:
        >>> import torch
        >>> z = torch.tensor([0.3], requires_grad=True)
        >>> out = replace_value(2 * z, torch.tensor([1.0]))
        >>> out.backward(); out.item(), z.grad.item()
        (1.0, 2.0)
    """
    return value.detach() + (carrier - carrier.detach())


def rotate(
    z: Float[Tensor, "*lead dim"], code: Float[Tensor, "*lead dim"], shortest: float = SHORTEST
) -> Float[Tensor, "*lead dim"]:
    r"""Rotates and scales each `z` onto its `code` by a linear map that has no gradient itself.

    The result equals `code` up to rounding, and its gradient reaches `z` through
    $\frac{|q|}{|z|} (I - 2 r r^T + 2 \hat q \hat z^T)$, with $r = (\hat z + \hat q) / |\hat z + \hat q|$.

    Source: Fifty et al. 2024, https://arxiv.org/abs/2410.06424, section 4.2 (Householder form).
    Differs from the source: where z is shorter than `shortest` the factor 1 / |z| fades to 0, as in
        `vq.ops.directions.unit`. A vector of zeros has no direction to rotate from, and gets no gradient.

    Args:
        z: Vectors of the encoder.
        code: Selected codes.
        shortest: Smallest length of z at which the map is exact.
    """
    z_unit, code_unit = unit(z.detach()), unit(code.detach())
    middle = unit(z_unit + code_unit)
    scale = length(code) * bounded_inverse(length(z), shortest=shortest)
    reflected = z - 2 * (z * middle).sum(-1, keepdim=True) * middle
    return scale * (reflected + 2 * (z * z_unit).sum(-1, keepdim=True) * code_unit)
