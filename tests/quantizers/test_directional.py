"""DiVeQ: the gradients are those of the published formula, and the value is the code."""

import pytest
import torch
from torch import nn

from vq.quantizers import DirectionalReparameterisation, LearnedCodebook, NormalInit, VectorQuantizer


def published(z, codes, indices, variance):
    """The formula as it is written, with the noise that the estimator draws after the same seed."""
    code = codes[indices]
    torch.manual_seed(7)
    noisy = code.detach() - z.detach() + variance**0.5 * torch.randn_like(z)
    direction = noisy / noisy.norm(dim=-1, keepdim=True)
    return z + (code - z).norm(dim=-1, keepdim=True) * direction


@pytest.mark.parametrize("variance", [0.0, 1e-3, 0.5])
def test_gradients_are_those_of_the_published_formula(variance):
    torch.manual_seed(0)
    estimator = DirectionalReparameterisation(variance=variance)
    quantizer = VectorQuantizer(
        codebook=LearnedCodebook(size=32, dim=5, init=NormalInit()), estimator=estimator
    ).double()
    z = torch.randn(6, 9, 5, dtype=torch.float64, requires_grad=True)
    g = torch.randn(6, 9, 5, dtype=torch.float64)
    torch.manual_seed(7)
    out = quantizer(z)
    out.quantized.backward(g)
    plain_z = z.detach().clone().requires_grad_()
    plain_codes = quantizer.codebook.weight.detach().clone().requires_grad_()
    plain = published(plain_z, plain_codes, out.indices, variance)
    plain.backward(g)
    torch.testing.assert_close(z.grad, plain_z.grad, atol=1e-12, rtol=1e-10)
    torch.testing.assert_close(quantizer.codebook.weight.grad, plain_codes.grad, atol=1e-12, rtol=1e-10)
    if variance == 0:
        torch.testing.assert_close(out.quantized, plain, atol=1e-12, rtol=1e-10)


def test_the_gradient_is_shared_out_and_none_of_it_is_lost_without_noise():
    torch.manual_seed(0)
    z, code = (torch.randn(20, 4, dtype=torch.float64, requires_grad=True) for _ in range(2))
    g = torch.randn(20, 4, dtype=torch.float64)
    DirectionalReparameterisation(variance=0.0)(z, code).backward(g)
    torch.testing.assert_close(z.grad + code.grad, g)
    towards = (code - z).detach()
    torch.testing.assert_close((z.grad * towards).sum(-1), torch.zeros(20, dtype=torch.float64))


def test_the_value_is_the_code_and_evaluation_draws_no_random_numbers():
    torch.manual_seed(0)
    estimator, z, code = DirectionalReparameterisation(), torch.randn(9, 4), torch.randn(9, 4)
    assert torch.equal(estimator(z.requires_grad_(), code), code)
    quantizer = VectorQuantizer(codebook=LearnedCodebook.example(), estimator=estimator).eval()
    before = torch.get_rng_state()
    with torch.no_grad():
        assert torch.equal(quantizer(z).quantized, quantizer.decode(quantizer.encode(z)))
    assert torch.equal(torch.get_rng_state(), before)
    quantizer(z)
    assert not torch.equal(torch.get_rng_state(), before)


def test_a_vector_on_its_code_has_a_finite_gradient():
    z = torch.ones(3, 4, requires_grad=True)
    DirectionalReparameterisation()(z, torch.ones(3, 4)).sum().backward()
    assert torch.equal(z.grad, torch.ones(3, 4))


def test_the_task_alone_trains_encoder_and_codes():
    torch.manual_seed(0)
    data = torch.randn(512, 2)
    quantizer = VectorQuantizer(
        codebook=LearnedCodebook(size=16, dim=2, init=NormalInit()),
        estimator=DirectionalReparameterisation(),
    )
    encoder, decoder = nn.Linear(2, 2), nn.Linear(2, 2)
    optimizer = torch.optim.Adam(nn.ModuleList([quantizer, encoder, decoder]).parameters(), lr=0.01)
    errors = []
    for _ in range(300):
        optimizer.zero_grad()
        error = (decoder(quantizer(encoder(data)).quantized) - data).square().mean()
        error.backward()
        optimizer.step()
        errors.append(error.item())
    assert errors[-1] < 0.2
    assert errors[-1] < errors[0] / 4


def test_a_negative_variance_is_refused():
    with pytest.raises(ValueError, match=r"expected a variance of 0 or more, got -1\.0"):
        DirectionalReparameterisation(variance=-1.0)
