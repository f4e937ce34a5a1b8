"""IBQ: the loss and its gradients against the paper's equations with full tensors, and invalid arguments."""

import pytest
import torch

from vq.quantizers import IndexBackpropagationQuantizer, KMeansInit, NormalInit


def full_tables(z, codes, *, beta, weight, temperature):
    """Computes q and the loss as in the paper, with every (vectors, codes) matrix in memory."""
    logits = z @ codes.T
    p = logits.softmax(1)
    hard = torch.nn.functional.one_hot(p.argmax(1), len(codes)).to(z)
    q, q_hard = (hard + p - p.detach()) @ codes, hard @ codes
    loss = (
        (q - z).square().mean()
        + (q_hard.detach() - z).square().mean()
        + beta * (q_hard - z.detach()).square().mean()
    )
    sharp = (logits / temperature).softmax(1)
    mean = sharp.mean(0)
    sample = -torch.xlogy(sharp, sharp).sum(1).mean()
    return q, loss + weight * (sample + torch.xlogy(mean, mean).sum())


def test_code_loss_and_gradients_equal_the_full_tables():
    torch.manual_seed(0)
    quantizer = IndexBackpropagationQuantizer(
        size=12, dim=4, commitment_weight=0.3, entropy_weight=0.2, temperature=0.7, init=NormalInit(std=1.0)
    ).double()
    z = torch.randn(2, 20, 4, dtype=torch.float64, requires_grad=True)
    pull = torch.randn_like(z)
    out = quantizer(z)
    q, loss = full_tables(z.view(-1, 4), quantizer.codes, beta=0.3, weight=0.2, temperature=0.7)
    torch.testing.assert_close(out.quantized.view(-1, 4), q, atol=1e-12, rtol=0)
    torch.testing.assert_close(out.loss, loss, atol=1e-10, rtol=0)
    found = torch.autograd.grad((out.quantized * pull).sum() + out.loss, (z, quantizer.codes))
    expected = torch.autograd.grad((q.view_as(z) * pull).sum() + loss, (z, quantizer.codes))
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, atol=1e-10, rtol=1e-8)


def test_unused_codes_move_with_the_others():
    torch.manual_seed(0)
    quantizer = IndexBackpropagationQuantizer(size=64, dim=4)
    z = torch.randn(1, 4) * 0.1 + 1
    (quantizer(z).quantized - z).square().sum().backward()
    assert (quantizer.codes.grad.abs().sum(1) > 0).all()


def test_it_learns_clusters():
    torch.manual_seed(0)
    centres = 2 * torch.eye(4)
    quantizer = IndexBackpropagationQuantizer(size=16, dim=4)
    optimizer = torch.optim.Adam(quantizer.parameters(), lr=0.05)
    for _ in range(150):
        z = centres[torch.randint(4, (64,))] + 0.05 * torch.randn(64, 4)
        out = quantizer(z)
        optimizer.zero_grad()
        (out.loss + (out.quantized - z).square().mean()).backward()
        optimizer.step()
    quantizer.eval()
    assert (quantizer(centres).quantized - centres).square().mean() < 0.05
    assert len(quantizer.encode(centres).unique()) == 4


def test_invalid_arguments_raise():
    with pytest.raises(ValueError, match="expected positive size, dim and temperature, got 0, 4"):
        IndexBackpropagationQuantizer(size=0, dim=4)
    with pytest.raises(ValueError, match=r"temperature, got 8, 4 and 0\.0"):
        IndexBackpropagationQuantizer(size=8, dim=4, temperature=0.0)
    with pytest.raises(ValueError, match="expected weights of at least 0, got commitment_weight=-1"):
        IndexBackpropagationQuantizer(size=8, dim=4, commitment_weight=-1.0)
    with pytest.raises(ValueError, match="expected an init that draws codes, got KMeansInit"):
        IndexBackpropagationQuantizer(size=8, dim=4, init=KMeansInit())
