"""FSP: codes, perturbation and loss are those of the paper's equations."""

import math

import numpy as np
import pytest
import torch

from vq.quantizers import ScalarPerturbationQuantizer

LEVELS = [8, 6, 5]


def vectors(*lead):
    torch.manual_seed(0)
    return torch.randn(*lead, len(LEVELS), dtype=torch.float64)


def cdf(z, activation):
    if activation == "tanh":
        return (np.tanh(z) + 1) / 2
    return np.vectorize(lambda x: (1 + math.erf(x / math.sqrt(2))) / 2)(z)


@pytest.mark.parametrize("activation", ["tanh", "normal"])
def test_codes_are_the_centres_of_the_bins(activation):
    z = vectors(200)
    out = ScalarPerturbationQuantizer(levels=LEVELS, activation=activation).eval()(z)
    digits = np.floor(cdf(z.numpy(), activation) * LEVELS)
    expected = ((digits + 0.5) / LEVELS - 0.5) * np.sqrt(12)
    np.testing.assert_allclose(out.quantized, expected, atol=1e-14)
    np.testing.assert_array_equal(out.indices, digits @ [1, 8, 48])


@pytest.mark.parametrize("activation", ["tanh", "normal"])
def test_value_and_gradient_in_training_are_those_of_the_formula(activation):
    quantizer = ScalarPerturbationQuantizer(levels=LEVELS, activation=activation, width=1.5)
    z, g = vectors(40, 25).requires_grad_(), torch.randn(40, 25, 3, dtype=torch.float64)
    torch.manual_seed(5)
    out = quantizer(z)
    out.quantized.backward(g)

    plain, levels = z.detach().clone().requires_grad_(), torch.tensor(LEVELS)
    x = (plain.tanh() + 1) / 2 if activation == "tanh" else (1 + torch.erf(plain / math.sqrt(2))) / 2
    torch.manual_seed(5)
    is_perturbed = torch.rand(40, 25, 3, dtype=torch.float64) < 0.5
    moved = x + (torch.rand(40, 25, 3, dtype=torch.float64) - 0.5) * 1.5 / levels
    perturbed = torch.where((moved > 0) & (moved < 1), moved, x)
    centre = x + (((x * levels).floor().clip(max=levels - 1) + 0.5) / levels - x).detach()
    expected = (torch.where(is_perturbed, perturbed, centre) - 0.5) * math.sqrt(12)
    expected.backward(g)
    torch.testing.assert_close(out.quantized, expected, atol=1e-13, rtol=0)
    torch.testing.assert_close(z.grad, plain.grad, atol=1e-13, rtol=1e-12)
    assert 0.4 < (out.quantized != quantizer.decode(out.indices, z.dtype)).double().mean() < 0.6


@pytest.mark.parametrize(("activation", "target"), [("tanh", 0.8225), ("normal", 1.0)])
def test_the_loss_is_that_of_the_moments_with_its_gradient(activation, target):
    quantizer = ScalarPerturbationQuantizer(levels=LEVELS, activation=activation)
    z = (vectors(50) * 1.5 + 0.3).requires_grad_()
    out = quantizer(z)
    out.loss.backward()
    plain = z.detach().clone().requires_grad_()
    error = plain.var(dim=0, correction=0) - (math.pi**2 / 12 if activation == "tanh" else 1)
    expected = 0.1 * plain.mean(dim=0).square().mean() + 0.07 * error.square().mean()
    expected.backward()
    torch.testing.assert_close(out.loss, expected)
    torch.testing.assert_close(z.grad, plain.grad)
    assert math.isclose(math.pi**2 / 12 if activation == "tanh" else 1, target, abs_tol=1e-4)


def test_a_channel_with_the_distribution_of_the_cdf_uses_its_bins_evenly_and_costs_nothing():
    x = torch.linspace(0, 1, 120_001, dtype=torch.float64)[1:-1]
    z = torch.atanh(2 * x - 1)[:, None].expand(-1, 3)
    out = ScalarPerturbationQuantizer(levels=[3, 4, 5]).eval()(z)
    digits = out.indices // 3 % 4
    assert torch.bincount(digits).double().std() < 2
    assert out.loss < 1e-5
    assert 0.88 < out.quantized.var(dim=0).min() < out.quantized.var(dim=0).max() < 1


def test_without_perturbation_training_is_evaluation():
    quantizer, z = ScalarPerturbationQuantizer(levels=LEVELS, perturbation_rate=0.0), vectors(30)
    assert torch.equal(quantizer(z).quantized, quantizer.eval()(z).quantized)


@pytest.mark.parametrize("value", [-1e4, 1e4])
def test_saturated_channels_are_in_the_outermost_bins(value):
    quantizer = ScalarPerturbationQuantizer(levels=LEVELS).eval()
    assert quantizer.encode(torch.full((1, 3), value)).item() == (0 if value < 0 else 239)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"levels": [2]}, "expected levels of at least 3"),
        ({"levels": [5], "perturbation_rate": 1.5}, r"expected a perturbation_rate in \[0, 1\], got 1.5"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=f"ScalarPerturbationQuantizer: {message}"):
        ScalarPerturbationQuantizer(**options)
