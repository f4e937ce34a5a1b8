"""The contrast of each code's nearest vectors with its farthest ones, computed in tiles of codes."""

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from vq.ops.distance import common_centre

# Elements of one tile of scores of some codes and all vectors; sorting needs about five such tiles.
CPU_TILE = 2**19
GPU_TILE = 2**23


def contrast(
    z: Float[Tensor, "n dim"],
    codes: Float[Tensor, "size dim"],
    mask: Bool[Tensor, "n"],
    temperature: float,
) -> Float[Tensor, ""]:
    r"""Computes the mean over codes of an InfoNCE loss among vectors; 0 without any vector.

    With the scores $s_n = -|z_n - e|^2 / 2$ of a code, its positive is the mean of the `max(1, n // size)`
    largest, its negatives are the `n // 2` smallest, and its loss is $-\log$ of the positive's share in the
    softmax over all of them. On the unit sphere the scores are the cosines, up to a constant that cancels.

    Differentiable once, in `z` and `codes`. The forward computes what the gradient needs, because the sorted scores
    are not kept.

    Args:
        z: Vectors.
        codes: Codes.
        mask: True for the vectors that count; the others, even if they are NaN, have no influence.
        temperature: Divisor of the scores.
    """
    centre = common_centre(codes)  # differences are the same, but lose fewer digits
    return _contrast(z - centre, codes - centre, mask, temperature)[0]


@torch.library.custom_op(
    "vq::contrast",
    mutates_args=(),
    schema="(Tensor z, Tensor codes, Tensor mask, float temperature) -> (Tensor, Tensor, Tensor)",
)
def _contrast(z: Tensor, codes: Tensor, mask: Tensor, temperature: float) -> tuple[Tensor, Tensor, Tensor]:
    filled = torch.where(mask[:, None], z, 0.0)
    # Masked vectors get the largest scores, and are sorted behind the last position that is used.
    bias = torch.where(mask, filled.square().sum(dim=1) / -2, torch.inf)
    count = mask.sum()
    position = torch.arange(len(z), device=z.device)
    num_positive = (count // len(codes)).clamp_min(1)
    is_negative = position < count // 2
    is_positive = (position >= count - num_positive) & (position < count)
    step = max(1, (CPU_TILE if z.device.type == "cpu" else GPU_TILE) // max(len(z), 1))
    loss, z_grad, codes_grad = z.new_zeros(()), torch.zeros_like(z), torch.zeros_like(codes)
    for start in range(0, len(codes), step):
        some = slice(start, start + step)
        scores, order = torch.addmm(bias, codes[some], filled.T).div_(temperature).sort(dim=1)
        positive = torch.where(is_positive, scores, 0.0).sum(dim=1) / num_positive
        # The logits of a code are its negatives and one positive.
        logits = torch.where(is_negative, scores, -torch.inf)
        normaliser = torch.logaddexp(positive, logits.logsumexp(dim=1))
        loss += torch.where(count > 0, normaliser - positive, 0.0).sum()
        share = (positive - normaliser).exp() - 1
        sorted_grad = (logits - normaliser[:, None]).exp() + is_positive * (share / num_positive)[:, None]
        sorted_grad = torch.where(is_positive | is_negative, sorted_grad, 0.0)
        grad = torch.zeros_like(sorted_grad).scatter_(1, order, sorted_grad)
        z_grad += grad.T @ codes[some] - grad.sum(dim=0)[:, None] * filled
        # The -|e|^2 / 2 of all scores of a code cancels in its softmax.
        codes_grad[some] = grad @ filled
    scale = 1 / len(codes)
    return loss * scale, z_grad * (scale / temperature), codes_grad * (scale / temperature)


@_contrast.register_fake
def _(z: Tensor, codes: Tensor, mask: Tensor, temperature: float) -> tuple[Tensor, Tensor, Tensor]:
    return z.new_empty(()), torch.empty_like(z), torch.empty_like(codes)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    ctx.mark_non_differentiable(*output[1:])
    ctx.save_for_backward(*output[1:])


def _backward(ctx: Any, grad: Tensor, *unused: Any) -> tuple[Tensor, Tensor, None, None]:
    z_grad, codes_grad = ctx.saved_tensors
    return grad * z_grad, grad * codes_grad, None, None


_contrast.register_autograd(_backward, setup_context=_setup)
