"""Scores of the next-token predictions of a generator."""

import math

import torch
from jaxtyping import Float, Float64, Int, Int64
from torch import Tensor, nn

from vq import distributed
from vq.metrics.base import set_to_zero, sum_over_ranks


def token_scores(
    logits: Float[Tensor, "*lead codebook_size"], indices: Int[Tensor, "*lead"]
) -> tuple[Int64[Tensor, ""], Float64[Tensor, ""]]:
    """Computes the number of correct predictions and the sum of the negative log-likelihoods, in nats.

    A prediction is correct if the true token has the largest logit; of equal logits, the first is the largest.

    Args:
        logits: The logits of each position.
        indices: The true tokens, in [0, codebook_size).

    Example:
        >>> right, nats = token_scores(torch.tensor([[0.0, 0.0], [0.0, 9.0]]), torch.tensor([1, 1]))
        >>> right.item(), round(nats.item(), 3)
        (1, 0.693)
    """
    log_probability = logits.double().log_softmax(dim=-1)
    nats = -log_probability.gather(-1, indices.long()[..., None]).sum()
    return (logits.argmax(dim=-1) == indices).sum(), nats


class TokenScores(nn.Module):
    """Accumulates how well a generator predicts a whole set of tokens, over all ranks.

    The predictions are teacher-forced: each is made from the true tokens before it. `token_accuracy` is the fraction of
    tokens that have the largest logit. `token_perplexity`, at least 1, is the exponential of the mean negative
    log-likelihood, and `token_bits` is the latter in bits per token. Only `compute` waits for the GPU.
    """

    right: Tensor
    nats: Tensor
    tokens: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("right", torch.zeros((), dtype=torch.int64), persistent=False)
        self.register_buffer("nats", torch.zeros((), dtype=torch.float64), persistent=False)
        self.register_buffer("tokens", torch.zeros((), dtype=torch.int64), persistent=False)
        self._is_synced = False

    @torch.no_grad()
    def update(self, *, logits: Float[Tensor, "*lead codebook_size"], indices: Int[Tensor, "*lead"]) -> None:
        """Adds a batch.

        Args:
            logits: The logits of each position.
            indices: The true tokens, in [0, codebook_size).

        Raises:
            RuntimeError: If `sync` was called since the last `reset`.
        """
        if self._is_synced:
            raise RuntimeError(
                "TokenScores.update: expected scores before sync(), got ones whose sums are those of all ranks "
                "already; call reset() before the next set"
            )
        right, nats = token_scores(logits, indices)
        self.right += right
        self.nats += nats
        self.tokens += indices.numel()

    def sync(self) -> None:
        """Replaces the sums by those over all ranks. Every rank must call it; a second call does nothing."""
        if not self._is_synced:
            sum_over_ranks(self)
        self._is_synced = True

    def reset(self) -> None:
        """Discards all tokens seen so far."""
        set_to_zero(self)
        self._is_synced = False

    def compute(self) -> dict[str, float]:
        """Returns the scores of all tokens seen, by name. It waits for the GPU.

        Raises:
            RuntimeError: If there were no tokens, or there are several ranks and `sync` was not called.
        """
        if distributed.world_size() > 1 and not self._is_synced:
            raise RuntimeError(
                f"TokenScores.compute: expected sums over all {distributed.world_size()} ranks, got those of this rank "
                "alone; call sync() on every rank first"
            )
        tokens = int(self.tokens)
        if tokens == 0:
            raise RuntimeError(
                "TokenScores.compute: expected at least one token, got none; call update() first"
            )
        mean = float(self.nats) / tokens
        return {
            "token_accuracy": int(self.right) / tokens,
            "token_perplexity": math.exp(mean) if mean < 700 else math.inf,
            "token_bits": mean / math.log(2),
        }
