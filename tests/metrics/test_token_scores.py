"""Token accuracy and perplexity from their definitions."""

import numpy as np
import pytest
import torch

from vq.metrics import TokenScores
from vq.metrics.tokens import token_scores


def predictions(count: int = 11) -> tuple[torch.Tensor, torch.Tensor]:
    draws = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(count, 4, 7, generator=draws)
    indices = torch.where(
        torch.rand(count, 4, generator=draws) < 0.5, logits.argmax(dim=-1), torch.randint(7, (count, 4))
    )
    return logits, indices


def test_equals_numpy_over_batches():
    logits, indices = predictions()
    scores = TokenScores()
    for a, b in zip(logits.split(4), indices.split(4), strict=True):
        scores.update(logits=a, indices=b)
    scores.sync()
    x, y = logits.double().numpy().reshape(-1, 7), indices.numpy().ravel()
    nats = np.mean(np.log(np.exp(x).sum(axis=1)) - x[np.arange(len(y)), y])
    assert scores.compute() == {
        "token_accuracy": pytest.approx((x.argmax(axis=1) == y).mean()),
        "token_perplexity": pytest.approx(np.exp(nats), rel=1e-12),
        "token_bits": pytest.approx(nats / np.log(2), rel=1e-12),
    }


def test_knowing_nothing_is_a_perplexity_of_the_codebook():
    right, nats = token_scores(torch.zeros(3, 16), torch.tensor([0, 5, 15]))
    assert right.item() == 1
    assert torch.exp(nats / 3).item() == pytest.approx(16)


def test_reset_and_states():
    logits, indices = predictions()
    scores = TokenScores()
    scores.update(logits=logits, indices=indices)
    wanted = scores.compute()
    scores.sync()
    with pytest.raises(RuntimeError, match=r"TokenScores.update: expected scores before sync\(\)"):
        scores.update(logits=logits, indices=indices)
    scores.reset()
    with pytest.raises(RuntimeError, match=r"TokenScores.compute: expected at least one token, got none"):
        scores.compute()
    scores.update(logits=logits, indices=indices)
    assert scores.compute() == wanted
    assert len(scores.state_dict()) == 0


def test_certain_and_wrong_is_infinite_not_an_error():
    scores = TokenScores()
    scores.update(logits=torch.tensor([[0.0, 1e4]]), indices=torch.tensor([0]))
    assert scores.compute()["token_perplexity"] == float("inf")
