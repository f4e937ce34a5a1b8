"""Entropies of softmax choices among many codes, computed in tiles without a (vectors x codes) tensor.

The functions return *sums* over this rank's vectors. `vq.quantizers.parts.regularisers` adds them over ranks and
divides them.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from vq.ops.kernels import use_kernels
from vq.ops.numerics.precision import without_autocast

# Elements of one tile of probabilities; a backward needs three tiles (4 MiB each in float32).
CPU_TILE = 2**20
GPU_TILE = 2**24
# Minimum number of rows in a tile: with very many codes a tile would shrink to single rows, which is slow.
MIN_ROWS = 16


def entropy(distribution: Float[Tensor, "*lead size"]) -> Float[Tensor, "*lead"]:
    """Computes - sum p log p along the last axis, in nats; entries with p = 0 add 0 and get a finite gradient.

    Example:
        >>> round(entropy(torch.tensor([0.5, 0.5, 0.0])).item(), 4)
        0.6931
    """
    tiny = torch.finfo(distribution.dtype).tiny
    return -(distribution * distribution.clamp_min(tiny).log()).sum(dim=-1)


def bit_entropy(logits: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Computes the entropy of each independent bit that is 1 with the probability sigmoid(logit), in nats.

    Example:
        >>> round(bit_entropy(torch.tensor(0.0)).item(), 4)
        0.6931
    """
    size = logits.abs()  # both terms are positive, so nothing cancels, even for nearly certain bits
    return F.softplus(-size) + size * torch.sigmoid(-size)


def softmax_sums(
    z: Float[Tensor, "n dim"],
    codes: Float[Tensor, "size dim"],
    bias: Float[Tensor, "size"],
    weight: Float[Tensor, "n"],
) -> tuple[Float[Tensor, ""], Float[Tensor, "size"]]:
    """Computes the sums over vectors of the entropy, and of the distribution, of $p = softmax(z e_k + b_k)$.

    A softmax of minus the squared distance over a temperature has this form (`distance_logits`).
    Differentiable once, in all arguments but `weight`; the backward computes the probabilities again.

    Args:
        z: Vectors.
        codes: Codes whose products with a vector are its logits, up to the bias.
        bias: Number added to the logits of each code.
        weight: Weight of each vector in the sums, such as 1, or 0 at padded positions.
    """
    return _softmax_sums(z, codes, bias, weight)


def distance_logits(
    z: Float[Tensor, "n dim"], codes: Float[Tensor, "size dim"], temperature: float
) -> tuple[Float[Tensor, "n dim"], Float[Tensor, "size"]]:
    r"""Returns the vectors and the bias with which `softmax_sums` has $p = softmax(- |z - e_k|^2 / \tau)$.

    The sign is *minus* the distance: the nearest code is the most probable one. $|z|^2$, which is the same for all
    codes, is left out. A common mean of vectors and codes costs digits: subtract it first (`centred`).
    """
    return z * (2 / temperature), -codes.square().sum(dim=-1) / temperature


def bit_distribution_sum(
    logits: Float[Tensor, "n bits"], weight: Float[Tensor, "n"]
) -> Float[Tensor, "size"]:
    """Computes the sum over vectors of the distribution over all 2^bits patterns of independent bits.

    Bit i is 1 with the probability sigmoid(logits[:, i]); pattern k has the bits of k, bit 0 least
    significant. The distribution of a vector is the outer product of those of its first and its second
    half of the bits, so the sum is one product of matrices with 2^(bits / 2) columns each, not 2^bits.
    Differentiable once, in `logits`.

    Args:
        logits: Logits of at most 30 bits.
        weight: Weight of each vector in the sum.

    Example:
        >>> bit_distribution_sum(torch.tensor([[99.0, -99.0]]), torch.ones(1)).tolist()
        [0.0, 1.0, 0.0, 0.0]
    """
    return _bit_distribution_sum(logits, weight)


def tile_rows(x: Float[Tensor, "..."], columns: int) -> int:
    """Returns the number of rows of a tile with so many columns, on the device of `x`."""
    tile = CPU_TILE if x.device.type == "cpu" else GPU_TILE
    return max(MIN_ROWS, tile // max(columns, 1))


def softmax_tile(
    z: Float[Tensor, "n dim"], codes: Float[Tensor, "size dim"], bias: Float[Tensor, "size"]
) -> tuple[Float[Tensor, "n size"], Float[Tensor, "n size"], Float[Tensor, "n"]]:
    """Computes of some vectors the scores minus their maximum, the probabilities, and the log of the normaliser."""
    scores = torch.addmm(bias, z, codes.T)
    scores -= scores.amax(dim=1, keepdim=True)
    probabilities = scores.exp()
    normaliser = probabilities.sum(dim=1)
    probabilities /= normaliser[:, None]
    return scores, probabilities, normaliser.log()


@torch.library.custom_op(
    "vq::softmax_sums",
    mutates_args=(),
    schema="(Tensor z, Tensor codes, Tensor bias, Tensor weight) -> (Tensor, Tensor)",
)
def _softmax_sums(z: Tensor, codes: Tensor, bias: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    if use_kernels(z.device) and z.dtype == torch.float32:
        from vq.ops.kernels import softmax

        return softmax.softmax_sums(
            z.contiguous(), codes.contiguous(), bias.contiguous(), weight.contiguous()
        )
    entropies, distribution = z.new_zeros(()), z.new_zeros(len(codes))
    step = tile_rows(z, len(codes))
    for start in range(0, len(z), step):
        some = slice(start, start + step)
        scores, probabilities, log_normaliser = softmax_tile(z[some], codes, bias)
        distribution.addmv_(probabilities.T, weight[some])
        expected = scores.mul_(probabilities).sum(dim=1)
        entropies += weight[some] @ (log_normaliser - expected)
    return entropies, distribution


@_softmax_sums.register_fake
def _(z: Tensor, codes: Tensor, bias: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    return z.new_empty(()), z.new_empty(len(codes))


@torch.library.custom_op(
    "vq::softmax_sums_backward",
    mutates_args=(),
    schema="(Tensor grads, Tensor z, Tensor codes, Tensor bias, Tensor weight) -> (Tensor, Tensor, Tensor)",
)
def _softmax_sums_backward(
    grads: Tensor, z: Tensor, codes: Tensor, bias: Tensor, weight: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    if use_kernels(z.device) and z.dtype == torch.float32:
        from vq.ops.kernels import softmax

        return softmax.softmax_sums_backward(*(x.contiguous() for x in (grads, z, codes, bias, weight)))
    z_grad, codes_grad, bias_grad = torch.empty_like(z), torch.zeros_like(codes), torch.zeros_like(bias)
    step = tile_rows(z, len(codes))
    for start in range(0, len(z), step):
        some = slice(start, start + step)
        scores, probabilities, _ = softmax_tile(z[some], codes, bias)
        # dH/ds_k = -p_k (s_k - sum p s), and dp_j/ds_k = p_j ([j = k] - p_k).
        direction = scores.mul_(-grads[0]).add_(grads[1:])
        direction -= (probabilities * direction).sum(dim=1, keepdim=True)
        scores_grad = direction.mul_(probabilities).mul_(weight[some, None])
        torch.mm(scores_grad, codes, out=z_grad[some])
        codes_grad.addmm_(scores_grad.T, z[some])
        bias_grad += scores_grad.sum(dim=0)
    return z_grad, codes_grad, bias_grad


@_softmax_sums_backward.register_fake
def _(grads: Tensor, z: Tensor, codes: Tensor, bias: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(z), torch.empty_like(codes), torch.empty_like(bias)


def _save_inputs(ctx: Any, inputs: tuple[Tensor, ...], output: Any) -> None:
    ctx.save_for_backward(*inputs)


def _softmax_sums_gradient(
    ctx: Any, entropy_grad: Tensor, distribution_grad: Tensor
) -> tuple[Tensor | None, ...]:
    grads = torch.cat([entropy_grad[None], distribution_grad])
    with without_autocast(grads):  # for a backward pass that is run inside autocast
        return (*_softmax_sums_backward(grads, *ctx.saved_tensors), None)


_softmax_sums.register_autograd(_softmax_sums_gradient, setup_context=_save_inputs)


def _patterns(sigmoid: Float[Tensor, "n bits"]) -> Float[Tensor, "n patterns"]:
    """Computes the distribution of each row over the patterns of its bits, bit 0 least significant."""
    joint = sigmoid.new_ones(len(sigmoid), 1)
    for bit in range(sigmoid.shape[1]):
        one = sigmoid[:, bit, None]
        joint = torch.cat([joint * (1 - one), joint * one], dim=1)
    return joint


@torch.library.custom_op(
    "vq::bit_distribution_sum", mutates_args=(), schema="(Tensor logits, Tensor weight) -> Tensor"
)
def _bit_distribution_sum(logits: Tensor, weight: Tensor) -> Tensor:
    low = logits.shape[1] // 2
    high = logits.shape[1] - low
    total = logits.new_zeros(2**high, 2**low)
    step = tile_rows(logits, 2**high)
    for start in range(0, len(logits), step):
        sigmoid = logits[start : start + step].sigmoid()
        lower = _patterns(sigmoid[:, :low]) * weight[start : start + step, None]
        total.addmm_(_patterns(sigmoid[:, low:]).T, lower)
    return total.flatten()


@_bit_distribution_sum.register_fake
def _(logits: Tensor, weight: Tensor) -> Tensor:
    return logits.new_empty(2 ** logits.shape[1])


@torch.library.custom_op(
    "vq::bit_distribution_sum_backward",
    mutates_args=(),
    schema="(Tensor grad, Tensor logits, Tensor weight) -> Tensor",
)
def _bit_distribution_sum_backward(grad: Tensor, logits: Tensor, weight: Tensor) -> Tensor:
    low = logits.shape[1] // 2
    high = logits.shape[1] - low
    square = grad.reshape(2**high, 2**low)
    out = torch.empty_like(logits)
    step = tile_rows(logits, 2**high)
    for start in range(0, len(logits), step):
        some = slice(start, start + step)
        sigmoid = logits[some].sigmoid()
        lower, upper = _patterns(sigmoid[:, :low]), _patterns(sigmoid[:, low:])
        # d(pattern k)/d(logit i) = (pattern k) ([bit i of k] - sigmoid_i).
        for bits, pull in (
            (slice(0, low), (upper @ square).mul_(lower)),
            (slice(low, None), (lower @ square.T).mul_(upper)),
        ):
            of_bits = pull @ _bit_table(pull)
            out[some, bits] = weight[some, None] * (of_bits - sigmoid[:, bits] * pull.sum(1, keepdim=True))
    return out


def _bit_table(like: Float[Tensor, "n patterns"]) -> Float[Tensor, "patterns bits"]:
    """Returns a table whose row k holds the bits of k, for as many patterns as `like` has columns."""
    patterns = torch.arange(like.shape[1], device=like.device)
    bits = torch.arange(like.shape[1].bit_length() - 1, device=like.device)
    return (patterns[:, None] >> bits & 1).to(like.dtype)


@_bit_distribution_sum_backward.register_fake
def _(grad: Tensor, logits: Tensor, weight: Tensor) -> Tensor:
    return torch.empty_like(logits)


def _bit_distribution_gradient(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
    with without_autocast(grad):
        return _bit_distribution_sum_backward(grad, *ctx.saved_tensors), None


_bit_distribution_sum.register_autograd(_bit_distribution_gradient, setup_context=_save_inputs)
