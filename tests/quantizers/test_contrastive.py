"""The contrastive term of CVQ-VAE against float64 NumPy, and its gradient against autograd."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from vq.ops.contrast import contrast
from vq.quantizers import ContrastiveRegulariser


def in_numpy(z, codes, temperature):
    losses = []
    for e in codes:
        scores = np.sort(-((z - e) ** 2).sum(1) / 2)
        positive = scores[-max(1, len(z) // len(codes)) :].mean()
        logits = np.concatenate([[positive], scores[: len(z) // 2]]) / temperature
        losses.append(np.log(np.exp(logits - logits.max()).sum()) + logits.max() - logits[0])
    return np.mean(losses)


def in_torch(z, codes, temperature):
    """The same with autograd."""
    scores = (-(codes[:, None] - z).square().sum(-1) / 2).sort(dim=1).values
    positive = scores[:, -max(1, len(z) // len(codes)) :].mean(1, keepdim=True)
    logits = torch.cat([positive, scores[:, : len(z) // 2]], dim=1) / temperature
    return F.cross_entropy(logits, torch.zeros(len(codes), dtype=torch.int64))


@pytest.mark.parametrize(("n", "size"), [(40, 6), (7, 10), (1, 3), (2, 1)])
def test_value_and_gradient(n, size):
    z = torch.randn(n, 3, dtype=torch.float64, requires_grad=True)
    codes = torch.randn(size, 3, dtype=torch.float64, requires_grad=True)
    loss = contrast(z, codes, torch.ones(n, dtype=torch.bool), 0.3)
    np.testing.assert_allclose(
        loss.item(), in_numpy(z.detach().numpy(), codes.detach().numpy(), 0.3), atol=1e-12
    )
    grads = torch.autograd.grad(3 * loss, (z, codes))
    expected = torch.autograd.grad(3 * in_torch(z, codes, 0.3), (z, codes))
    torch.testing.assert_close(grads, expected)


def test_tiles_change_nothing(monkeypatch):
    z, codes, everything = torch.randn(40, 3), torch.randn(30, 3), torch.ones(40, dtype=torch.bool)
    whole = contrast(z, codes, everything, 0.07)
    monkeypatch.setattr("vq.ops.contrast.CPU_TILE", 40 * 7)
    torch.testing.assert_close(contrast(z, codes, everything, 0.07), whole)


def test_masked_vectors_have_no_influence():
    z, codes = torch.randn(20, 3), torch.randn(4, 3)
    regulariser = ContrastiveRegulariser()
    padded = torch.cat([torch.full((5, 3), torch.nan), z]).requires_grad_()
    mask = torch.arange(25) >= 5
    indices = torch.zeros(25, dtype=torch.int64)
    loss, metrics = regulariser(padded, codes, indices, mask, across_ranks=False)
    expected, _ = regulariser(z, codes, indices[:20], across_ranks=False)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(metrics["contrast"], expected)
    (grad,) = torch.autograd.grad(loss, padded)
    assert grad.isfinite().all()
    assert (grad[:5] == 0).all()
    nobody = regulariser(z, codes, indices[:20], torch.zeros(20, dtype=torch.bool), across_ranks=False)[0]
    assert nobody == 0
