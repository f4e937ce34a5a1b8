"""Scores of a generator's predictions of the next token."""

import math

import torch
from jaxtyping import Float, Float64, Int, Int64
from torch import Tensor, nn

from vq import distributed


def token_scores(
    logits: Float[Tensor, "*lead codebook_size"], indices: Int[Tensor, "*lead"]
) -> tuple[Int64[Tensor, ""], Float64[Tensor, ""]]:
    """Predictions and truth to the number of right tokens and the sum of their surprises, in nats.

    A prediction is right if the true token has the largest logit; of equal largest ones the first counts.

    Example:
        >>> right, nats = token_scores(torch.tensor([[0.0, 0.0], [0.0, 9.0]]), torch.tensor([1, 1]))
        >>> right.item(), round(nats.item(), 3)
        (1, 0.693)
    """
    log_probability = logits.double().log_softmax(dim=-1)
    nats = -log_probability.gather(-1, indices.long()[..., None]).sum()
    return (logits.argmax(dim=-1) == indices).sum(), nats


class TokenScores(nn.Module):
    """Sums up how well a generator predicts a whole set of tokens, over all ranks.

    Teacher-forced: each prediction sees the true tokens before it. `token_accuracy` is the fraction whose
    largest logit is the true one (not of sampled tokens), `token_perplexity` the exp of the mean surprise, in
    1..; `token_bits` is the same in bits a token. Nothing waits for the GPU before `compute`.
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
            logits: Of each place's token.
            indices: The true tokens, in [0, codebook_size).

        Raises:
            RuntimeError: If the ranks' sums are joined already; `reset` first.
        """
        if self._is_synced:
            raise RuntimeError(
                "TokenScores.update: expected scores that are still counting, got ones that have joined their sums "
                "over the ranks; call reset() before the next set"
            )
        right, nats = token_scores(logits, indices)
        self.right += right
        self.nats += nats
        self.tokens += indices.numel()

    def sync(self) -> None:
        """Replaces the sums by those over all ranks; every rank must call it. A second call does nothing."""
        if not self._is_synced:
            for buffer in (self.right, self.nats, self.tokens):
                buffer.copy_(distributed.all_reduce_sum(buffer))
        self._is_synced = True

    def reset(self) -> None:
        """Forgets all tokens."""
        for buffer in (self.right, self.nats, self.tokens):
            buffer.zero_()
        self._is_synced = False

    def compute(self) -> dict[str, float]:
        """The scores of all tokens seen, by name.

        Raises:
            RuntimeError: If there were none, or several ranks have not joined their sums.
        """
        if distributed.world_size() > 1 and not self._is_synced:
            raise RuntimeError(
                f"TokenScores.compute: expected sums that are joined over the {distributed.world_size()} ranks, got "
                "this rank's own; call sync() on every rank first"
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
