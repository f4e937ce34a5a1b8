"""Values from one tensor, gradients from another: the building blocks of the estimators."""

import torch
from jaxtyping import Float
from torch import Tensor


def replace_value(
    carrier: Float[Tensor, "*shape"], value: Float[Tensor, "*shape"]
) -> Float[Tensor, "*shape"]:
    """The value of `value`, bit for bit, with the gradient of `carrier`.

    The usual `carrier + (value - carrier).detach()` rounds and so misses the code by some bits; here
    exactly zero is added. Where `carrier` is NaN or infinite the result is NaN: broken input shows.

    Example:
        >>> z = torch.tensor([0.3], requires_grad=True)
        >>> out = replace_value(2 * z, torch.tensor([1.0]))
        >>> out.backward(); out.item(), z.grad.item()
        (1.0, 2.0)
    """
    return value.detach() + (carrier - carrier.detach())


def rotate(
    z: Float[Tensor, "*lead dim"], code: Float[Tensor, "*lead dim"], eps: float = 1e-8
) -> Float[Tensor, "*lead dim"]:
    r"""Rotates and scales each `z` onto its `code` by a map that is constant for the gradient.

    The result equals `code` up to rounding, and its gradient reaches `z` through
    $\frac{|q|}{|z|} (I - 2 r r^T + 2 \hat q \hat z^T)$, with $r = (\hat z + \hat q) / |\hat z + \hat q|$.

    Source: Fifty et al. 2024, https://arxiv.org/abs/2410.06424, section 4.2 (Householder form).
    Differs from the source: lengths are floored at `eps`, so that a zero vector gives no NaN.

    Args:
        z: The encoder's vectors.
        code: The selected codes.
        eps: The smallest length that is divided by.
    """
    z_length = z.detach().norm(dim=-1, keepdim=True).clamp_min(eps)
    code_length = code.detach().norm(dim=-1, keepdim=True).clamp_min(eps)
    z_unit, code_unit = z.detach() / z_length, code.detach() / code_length
    middle = torch.nn.functional.normalize(z_unit + code_unit, dim=-1, eps=eps)
    reflected = z - 2 * (z * middle).sum(-1, keepdim=True) * middle
    rotated: Tensor = (
        code_length / z_length * (reflected + 2 * (z * z_unit).sum(-1, keepdim=True) * code_unit)
    )
    return rotated
