"""A hard choice with the gradient of a softmax over all codes, computed without a (vectors x codes) tensor."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from vq.ops.distance import common_centre
from vq.ops.entropy import softmax_tile, tile_rows
from vq.ops.numerics.precision import without_autocast


def choose_with_soft_gradient(
    z: Float[Tensor, "n dim"], codes: Float[Tensor, "size dim"], indices: Int[Tensor, "n"]
) -> Float[Tensor, "n dim"]:
    r"""Returns the chosen codes, bit for bit, with the gradient of the soft choice $p = softmax_k(z e_k)$ as well.

    The value is $\sum_k A_k e_k$ with $A = onehot + p - sg(p)$. So with $g$ the gradient of the result and
    $d_k = p_k (g e_k - \sum_j p_j\, g e_j)$, the gradient is $\sum_k d_k e_k$ for z, $d_k z$ for every code, and
    $g$ in addition for the chosen one. Differentiable once; the backward computes the probabilities again.

    Args:
        z: Vectors.
        codes: Codes whose products with a vector are its logits.
        indices: int64 index of the chosen code of each vector.
    """
    return _choose(z, codes, indices)


@torch.library.custom_op(
    "vq::choose_with_soft_gradient",
    mutates_args=(),
    schema="(Tensor z, Tensor codes, Tensor indices) -> Tensor",
)
def _choose(z: Tensor, codes: Tensor, indices: Tensor) -> Tensor:
    return codes[indices]


@_choose.register_fake
def _(z: Tensor, codes: Tensor, indices: Tensor) -> Tensor:
    return torch.empty_like(z)


@torch.library.custom_op(
    "vq::choose_with_soft_gradient_backward",
    mutates_args=(),
    schema="(Tensor grad, Tensor z, Tensor codes, Tensor indices) -> (Tensor, Tensor)",
)
def _choose_backward(grad: Tensor, z: Tensor, codes: Tensor, indices: Tensor) -> tuple[Tensor, Tensor]:
    z_grad, codes_grad = torch.empty_like(z), torch.zeros_like(codes)
    codes_grad.index_add_(0, indices, grad)
    no_bias = codes.new_zeros(len(codes))
    # The sum over codes of d_k is 0, so the codes may be centred, which loses fewer digits.
    codes = codes - common_centre(codes)
    step = tile_rows(z, len(codes))
    for start in range(0, len(z), step):
        some = slice(start, start + step)
        scores, probabilities, _ = softmax_tile(z[some], codes, no_bias)
        direction = torch.mm(grad[some], codes.T, out=scores)
        direction -= (probabilities * direction).sum(dim=1, keepdim=True)
        scores_grad = direction.mul_(probabilities)
        torch.mm(scores_grad, codes, out=z_grad[some])
        codes_grad.addmm_(scores_grad.T, z[some])
    return z_grad, codes_grad


@_choose_backward.register_fake
def _(grad: Tensor, z: Tensor, codes: Tensor, indices: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(z), torch.empty_like(codes)


def _save_inputs(ctx: Any, inputs: tuple[Tensor, ...], output: Any) -> None:
    ctx.save_for_backward(*inputs)


def _gradient(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
    with without_autocast(grad):  # for a backward pass that is run inside autocast
        return *_choose_backward(grad, *ctx.saved_tensors), None


_choose.register_autograd(_gradient, setup_context=_save_inputs)
