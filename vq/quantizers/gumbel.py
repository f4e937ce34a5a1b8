"""Soft choices among codes: sampled (Gumbel-softmax) or deterministic (softmax VQ)."""

import math
import warnings

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from vq.ops.distance import centred, nearest_code
from vq.ops.entropy import distance_logits
from vq.quantizers.base import QuantizeOutput, Quantizer
from vq.quantizers.parts.regularisers import divergence_from_uniform, softmax_entropies
from vq.registry import QUANTIZERS


@QUANTIZERS.register_module()
class GumbelQuantizer(Quantizer):
    r"""Samples each code from a distribution that a linear map of `z` gives, with the gradient of a soft choice.

    In training the index is the argmax of the logits plus Gumbel noise, which is a sample of $p = softmax(l)$. The
    value is the selected code. Its gradient is that of the mixture $softmax((l + g) / \tau) E$, and also reaches
    the selected code directly. In eval there is no noise: the index is the argmax of the logits.

    The loss is `kl_weight` times the mean over vectors of $KL(p \| uniform) = \log K + \sum p \log p$, which is 0 for
    uniform logits and log K for certain ones. To it is added `diversity_weight` times $\log K - H(\bar p)$, where
    $\bar p$ is the mean of p over the vectors of all ranks: it is 0 if the codes are used evenly, whatever each choice.

    Unlike a nearest-code search, a training forward stores tensors of vectors times codes.

    Source: Jang et al. 2017, https://arxiv.org/abs/1611.01144, eq. 2; Ramesh et al. 2021 (DALL-E),
        https://arxiv.org/abs/2102.12092, section 2.1. The diversity term: Baevski et al. 2020 (wav2vec 2.0),
        https://arxiv.org/abs/2006.11477, eq. 4.
    Differs from the source: the mixture of DALL-E is soft in the forward too (`is_hard=False`), and its KL is a
        sum over positions, relative to the likelihood of the pixels. The diversity of wav2vec 2.0 is divided by the
        number of codes.

    Args:
        size: Number of codes.
        dim: Last axis of `z` and length of the codes.
        temperature: Temperature tau, which may be changed during training (`vq.quantizers.parts.annealing`).
        kl_weight: Weight of the divergence, not negative: a negative one would reward certainty. It may be changed
            during training too.
        diversity_weight: Weight of the diversity term, not negative. Without it few codes are used.
        is_hard: Whether the decoder sees codes in training. If False it sees the soft mixture, while codes are hard
            in eval: use this only with a temperature that falls far.

    Raises:
        ValueError: If size, dim or temperature is not positive, or a weight is negative.

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
        diversity_weight: float = 0.0,
        is_hard: bool = True,
    ) -> None:
        super().__init__()
        _check("GumbelQuantizer", size, dim, temperature, diversity_weight)
        if kl_weight < 0:
            raise ValueError(
                f"GumbelQuantizer: expected a kl_weight of at least 0, got {kl_weight}; the divergence is "
                f"minimised, so its weight has a plus sign"
            )
        if not is_hard:
            warnings.warn(
                "GumbelQuantizer: with is_hard=False the decoder sees mixtures in training and codes in eval; "
                "let the temperature fall to about 1/16",
                stacklevel=2,
            )
        self.codebook_size, self.codebook_dim = size, dim
        self.temperature, self.is_hard = temperature, is_hard
        self.kl_weight, self.diversity_weight = kl_weight, diversity_weight
        self.to_logits = nn.Linear(dim, size)
        # No loss term fits the scale of the codes to z, so they begin at the scale of a normalised z.
        self.codes = nn.Parameter(torch.randn(size, dim))

    @classmethod
    def example(cls) -> "GumbelQuantizer":
        """Returns a quantizer with 16 codes of length 4."""
        return cls(size=16, dim=4)

    @property
    def needs_task_gradient(self) -> bool:
        """True: only the gradient of the task moves the codes."""
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
        loss, metrics = self.kl_weight * divergence, {"kl_loss": divergence.detach()}
        if self.diversity_weight:
            entropies = softmax_entropies(vectors, weight, bias, counted, across_ranks=self.training)
            loss = loss + self.diversity_weight * (math.log(self.codebook_size) - entropies.codebook)
            metrics |= entropies.metrics()
        return QuantizeOutput(
            quantized=quantized.view(z.shape), indices=indices.view(z.shape[:-1]), loss=loss, metrics=metrics
        )

    def _encode(self, z: Float[Tensor, "*lead dim"]) -> Int[Tensor, "*lead"]:
        vectors = z.reshape(-1, self.codebook_dim)
        scores = F.linear(vectors, self.to_logits.weight.to(z.dtype), self.to_logits.bias.to(z.dtype))
        return scores.argmax(dim=1).view(z.shape[:-1])

    def _decode(self, indices: Int[Tensor, "*lead"], dtype: torch.dtype) -> Float[Tensor, "*lead dim"]:
        return F.embedding(indices, self.codes.to(dtype))


@QUANTIZERS.register_module()
class SoftmaxQuantizer(Quantizer):
    r"""Selects the nearest code, with the gradient of a softmax over all distances (softmax VQ; an experiment).

    With $p = softmax_k(-|z - e_k|^2 / (\tau \sqrt{dim}))$ the gradient is that of the mixture $p E$, and also
    reaches the selected code directly.

    With `is_straight_through=False` the decoder gets the mixture $p E$ in training. Then it never sees a code,
    nothing makes p certain, and in eval, where codes are hard, the error is many times larger. This form is kept as
    an experiment; a test shows that it does not work.

    A training forward stores tensors of vectors times codes. The loss is `diversity_weight` times the diversity term of
    `GumbelQuantizer`, with this p.

    Args:
        size: Number of codes.
        dim: Last axis of `z` and length of the codes.
        temperature: Temperature tau, which may be changed during training.
        is_straight_through: Whether the forward returns codes and only the backward uses the mixture.
        diversity_weight: Weight of the diversity term, not negative. Without it few codes are used.

    Raises:
        ValueError: If size, dim or temperature is not positive, or the weight is negative.
    """

    def __init__(
        self,
        *,
        size: int,
        dim: int,
        temperature: float = 1.0,
        is_straight_through: bool = True,
        diversity_weight: float = 0.0,
    ) -> None:
        super().__init__()
        _check("SoftmaxQuantizer", size, dim, temperature, diversity_weight)
        if not is_straight_through:
            warnings.warn(
                "SoftmaxQuantizer: with is_straight_through=False training and eval do not match; this is "
                "an experiment that is known not to work",
                stacklevel=2,
            )
        self.codebook_size, self.codebook_dim = size, dim
        self.temperature, self.is_straight_through = temperature, is_straight_through
        self.diversity_weight = diversity_weight
        self.codes = nn.Parameter(torch.randn(size, dim))

    @classmethod
    def example(cls) -> "SoftmaxQuantizer":
        """Returns a quantizer with 16 codes of length 4."""
        return cls(size=16, dim=4)

    @property
    def needs_task_gradient(self) -> bool:
        """True: only the gradient of the task moves the codes."""
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
        loss, metrics = z.new_zeros(()), {}
        if self.diversity_weight:
            counted = None if mask is None else mask.reshape(-1)
            entropies = softmax_entropies(scaled, moved_codes, bias, counted, across_ranks=self.training)
            loss = self.diversity_weight * (math.log(self.codebook_size) - entropies.codebook)
            metrics = entropies.metrics()
        return QuantizeOutput(
            quantized=quantized.view(z.shape), indices=indices.view(z.shape[:-1]), loss=loss, metrics=metrics
        )

    def _encode(self, z: Float[Tensor, "*lead dim"]) -> Int[Tensor, "*lead"]:
        vectors = z.reshape(-1, self.codebook_dim)
        return nearest_code(vectors, self.codes.to(z.dtype)).view(z.shape[:-1])

    def _decode(self, indices: Int[Tensor, "*lead"], dtype: torch.dtype) -> Float[Tensor, "*lead dim"]:
        return F.embedding(indices, self.codes.to(dtype))


def _hard_mixture(
    probabilities: Float[Tensor, "n size"], indices: Int[Tensor, "n"], codes: Float[Tensor, "size dim"]
) -> Float[Tensor, "n dim"]:
    """Returns the selected codes, bit for bit; the probabilities get the gradient of the mixture."""
    mixture = probabilities @ codes.detach()
    return F.embedding(indices, codes) + (mixture - mixture.detach())


def _gumbel_noise(
    like: Float[Tensor, "n size"], counted: Bool[Tensor, "n"] | None
) -> Float[Tensor, "n size"]:
    """Samples -log(-log(u)); padded positions do not change the noise of the others."""
    exponential = torch.empty_like(like).exponential_().clamp_min(torch.finfo(like.dtype).tiny)
    noise = -exponential.log()
    return noise if counted is None else noise[(counted.cumsum(0) - 1).clamp_min(0)]


def _check(place: str, size: int, dim: int, temperature: float, diversity_weight: float) -> None:
    if size < 1 or dim < 1:
        raise ValueError(f"{place}: expected positive size and dim, got {size} and {dim}")
    if temperature <= 0:
        raise ValueError(f"{place}: expected a positive temperature, got {temperature}")
    if diversity_weight < 0:
        raise ValueError(
            f"{place}: expected a diversity_weight of at least 0, got {diversity_weight}; a negative one would reward "
            f"using few codes"
        )
