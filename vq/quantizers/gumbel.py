"""Soft choices among codes: a sampled one (Gumbel-softmax) and a deterministic one (softmax VQ)."""

import math
import warnings

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from vq.ops.distance import centred, nearest_code
from vq.ops.entropy import distance_logits
from vq.quantizers.base import QuantizeOutput, Quantizer
from vq.quantizers.parts.regularisers import divergence_from_uniform
from vq.registry import QUANTIZERS


@QUANTIZERS.register_module()
class GumbelQuantizer(Quantizer):
    r"""Draws each code from a distribution that a linear map of `z` gives, softly for the gradient.

    In training the index is the argmax of logits plus Gumbel noise, a sample of $p = softmax(l)$. The value
    is its code; the gradient is that of the mixture $softmax((l + g) / \tau) E$, and the code's own. In eval
    there is no noise: the index is the argmax of the logits.

    The loss is `kl_weight` times $KL(p \| uniform) = \log K + \sum p \log p$, the mean over vectors: never
    negative, 0 for uniform logits, log K for certain ones.

    Unlike a search, a training forward keeps tables of vectors times codes.

    Source: Jang et al. 2017, https://arxiv.org/abs/1611.01144, eq. 2; Ramesh et al. 2021 (DALL-E),
        https://arxiv.org/abs/2102.12092, section 2.1.
    Differs from the source: DALL-E's mixture is soft in the forward too (`is_hard=False`), and its KL is a
        sum over positions, relative to the pixels' likelihood.

    Args:
        size: The number of codes.
        dim: The last axis of `z`, and the length of the codes.
        temperature: tau; to be set again in the course of training (`vq.quantizers.parts.annealing`).
        kl_weight: Not negative: a minus sign would reward certainty. May be set again too.
        is_hard: False hands the soft mixture on in training. In eval codes are hard all the same, which
            the decoder has never seen: only with a temperature that falls far.

    Raises:
        ValueError: If size, dim or temperature are not positive, or the weight is negative.

    Example:
        >>> quantizer = GumbelQuantizer(size=512, dim=64)
        >>> quantizer(torch.randn(2, 8, 8, 64)).indices.shape
        torch.Size([2, 8, 8])
    """

    def __init__(
        self,
        *,
        size: int,
        dim: int,
        temperature: float = 1.0,
        kl_weight: float = 5e-4,
        is_hard: bool = True,
    ) -> None:
        super().__init__()
        _check("GumbelQuantizer", size, dim, temperature)
        if kl_weight < 0:
            raise ValueError(
                f"GumbelQuantizer: expected a kl_weight of at least 0, got {kl_weight}; the divergence is to be "
                f"minimised, it has a plus sign"
            )
        if not is_hard:
            warnings.warn(
                "GumbelQuantizer: with is_hard=False the decoder sees mixtures in training and codes in eval; "
                "let the temperature fall to about 1/16",
                stacklevel=2,
            )
        self.codebook_size, self.codebook_dim = size, dim
        self.temperature, self.kl_weight, self.is_hard = temperature, kl_weight, is_hard
        self.to_logits = nn.Linear(dim, size)
        # No loss pulls the codes to a scale of their own, so they begin at that of a normalised z.
        self.codes = nn.Parameter(torch.randn(size, dim))

    @classmethod
    def example(cls) -> "GumbelQuantizer":
        """Sixteen codes of length 4."""
        return cls(size=16, dim=4)

    @property
    def needs_task_gradient(self) -> bool:
        """The codes learn from nothing else."""
        return True

    def _forward(self, z: Float[Tensor, "*lead dim"], mask: Bool[Tensor, "*lead"] | None) -> QuantizeOutput:
        vectors = z.reshape(-1, self.codebook_dim)
        counted = None if mask is None else mask.reshape(-1)
        weight, bias = self.to_logits.weight.to(z.dtype), self.to_logits.bias.to(z.dtype)
        scores = F.linear(vectors, weight, bias)
        if self.training:
            scores = scores + _gumbel_noise(scores, counted)
        indices = scores.argmax(dim=1)
        probabilities = (scores / self.temperature).softmax(dim=1)
        codes = self.codes.to(z.dtype)
        if self.is_hard or not self.training:
            quantized = _hard_mixture(probabilities, indices, codes)
        else:
            quantized = probabilities @ codes
        divergence = self._over_ranks(divergence_from_uniform(vectors, weight, bias, counted))
        return QuantizeOutput(
            quantized=quantized.view(z.shape),
            indices=indices.view(z.shape[:-1]),
            loss=self.kl_weight * divergence,
            metrics={"kl_loss": divergence.detach()},
        )

    def _encode(self, z: Float[Tensor, "*lead dim"]) -> Int[Tensor, "*lead"]:
        vectors = z.reshape(-1, self.codebook_dim)
        scores = F.linear(vectors, self.to_logits.weight.to(z.dtype), self.to_logits.bias.to(z.dtype))
        return scores.argmax(dim=1).view(z.shape[:-1])

    def _decode(self, indices: Int[Tensor, "*lead"], dtype: torch.dtype) -> Float[Tensor, "*lead dim"]:
        return F.embedding(indices, self.codes.to(dtype))


@QUANTIZERS.register_module()
class SoftmaxQuantizer(Quantizer):
    r"""Chooses the nearest code, with the gradient of a softmax over all distances (softmax VQ; an experiment).

    With $p = softmax_k(-|z - e_k|^2 / (\tau \sqrt{dim}))$ the gradient is that of $p E$, and the code's own.

    With `is_straight_through=False` the mixture $p E$ itself is handed on in training: the decoder never
    sees a code, nothing makes p decided, and in eval, where codes are hard, the error is many times larger.
    It is kept as an experiment; a test documents that it does not work.

    A training forward keeps tables of vectors times codes; there is no loss of its own.

    Args:
        size: The number of codes.
        dim: The length of each.
        temperature: tau; may be set again in the course of training.
        is_straight_through: Codes in the forward, the mixture in the backward.

    Raises:
        ValueError: If size, dim or temperature are not positive.
    """

    def __init__(
        self, *, size: int, dim: int, temperature: float = 1.0, is_straight_through: bool = True
    ) -> None:
        super().__init__()
        _check("SoftmaxQuantizer", size, dim, temperature)
        if not is_straight_through:
            warnings.warn(
                "SoftmaxQuantizer: with is_straight_through=False training and eval do not match; this is "
                "an experiment that is known not to work",
                stacklevel=2,
            )
        self.codebook_size, self.codebook_dim = size, dim
        self.temperature, self.is_straight_through = temperature, is_straight_through
        self.codes = nn.Parameter(torch.randn(size, dim))

    @classmethod
    def example(cls) -> "SoftmaxQuantizer":
        """Sixteen codes of length 4."""
        return cls(size=16, dim=4)

    @property
    def needs_task_gradient(self) -> bool:
        """The codes learn from nothing else."""
        return True

    def _forward(self, z: Float[Tensor, "*lead dim"], mask: Bool[Tensor, "*lead"] | None) -> QuantizeOutput:
        vectors, codes = z.reshape(-1, self.codebook_dim), self.codes.to(z.dtype)
        indices = nearest_code(vectors, codes)
        moved, moved_codes = centred(vectors, codes)
        scaled, bias = distance_logits(moved, moved_codes, self.temperature * math.sqrt(self.codebook_dim))
        probabilities = F.linear(scaled, moved_codes, bias).softmax(dim=1)
        if self.is_straight_through or not self.training:
            quantized = _hard_mixture(probabilities, indices, codes)
        else:
            quantized = probabilities @ codes
        return QuantizeOutput(
            quantized=quantized.view(z.shape), indices=indices.view(z.shape[:-1]), loss=z.new_zeros(())
        )

    def _encode(self, z: Float[Tensor, "*lead dim"]) -> Int[Tensor, "*lead"]:
        vectors = z.reshape(-1, self.codebook_dim)
        return nearest_code(vectors, self.codes.to(z.dtype)).view(z.shape[:-1])

    def _decode(self, indices: Int[Tensor, "*lead"], dtype: torch.dtype) -> Float[Tensor, "*lead dim"]:
        return F.embedding(indices, self.codes.to(dtype))


def _hard_mixture(
    probabilities: Float[Tensor, "n size"], indices: Int[Tensor, "n"], codes: Float[Tensor, "size dim"]
) -> Float[Tensor, "n dim"]:
    """The chosen codes, bit for bit; the probabilities get the gradient of the mixture."""
    mixture = probabilities @ codes.detach()
    return F.embedding(indices, codes) + (mixture - mixture.detach())


def _gumbel_noise(
    like: Float[Tensor, "n size"], counted: Bool[Tensor, "n"] | None
) -> Float[Tensor, "n size"]:
    """Samples of -log(-log(u)); padding does not change what the other vectors draw."""
    exponential = torch.empty_like(like).exponential_().clamp_min(torch.finfo(like.dtype).tiny)
    noise = -exponential.log()
    return noise if counted is None else noise[(counted.cumsum(0) - 1).clamp_min(0)]


def _check(place: str, size: int, dim: int, temperature: float) -> None:
    if size < 1 or dim < 1:
        raise ValueError(f"{place}: expected positive size and dim, got {size} and {dim}")
    if temperature <= 0:
        raise ValueError(f"{place}: expected a positive temperature, got {temperature}")
