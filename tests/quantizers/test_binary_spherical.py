"""BSQ: codes on the sphere, the nearest code, and the entropies by enumeration in float64 NumPy."""

import math

import numpy as np
import pytest
import torch
from scipy.special import softmax
from scipy.stats import entropy

from vq.quantizers import BinarySphericalQuantizer


def every_code(bits):
    return ((np.arange(2**bits)[:, None] >> np.arange(bits) & 1) * 2.0 - 1) / math.sqrt(bits)


def distributions(z, tau):
    u = z / np.linalg.norm(z, axis=1, keepdims=True)
    distance = ((u[:, None] - every_code(z.shape[1])) ** 2).sum(-1)
    return u, distance, softmax(-distance / tau, axis=1)


def test_the_code_is_the_nearest_one_on_the_sphere():
    z = np.random.default_rng(0).normal(size=(500, 5))
    u, distance, _ = distributions(z, 1.0)
    out = BinarySphericalQuantizer(bits=5)(torch.from_numpy(z))
    np.testing.assert_array_equal(out.indices, distance.argmin(1))
    np.testing.assert_allclose(out.quantized, every_code(5)[distance.argmin(1)])
    assert out.metrics["commitment_loss"].item() == pytest.approx(((u - out.quantized.numpy()) ** 2).mean())
    assert distance.min(1).max() < 2  # the squared error is bounded


def test_the_exact_entropies_equal_brute_force():
    z = np.random.default_rng(0).normal(size=(300, 6))
    _, _, p = distributions(z, 0.1)
    quantizer = BinarySphericalQuantizer(
        bits=6, temperature=0.1, group_bits=6, entropy_weight=0.3, diversity_weight=2.0, commitment_weight=0.0
    )
    expected = 0.3 * (entropy(p, axis=1).mean() - 2 * entropy(p.mean(0)))
    assert quantizer(torch.from_numpy(z)).loss.item() == pytest.approx(expected, rel=1e-8)


def test_the_papers_entropy_of_the_mean_is_the_sum_over_bits():
    z = np.random.default_rng(0).normal(size=(300, 6)) + 0.3
    u, _, _ = distributions(z, 1.0)
    # Eq. 8 of the paper with tau 2: sigmoid(2 tau c u).
    one = (1 / (1 + np.exp(-2 * 2 * u / math.sqrt(6)))).mean(0)
    out = BinarySphericalQuantizer(bits=6)(torch.from_numpy(z))
    assert out.metrics["codebook_entropy"].item() == pytest.approx(entropy([one, 1 - one]).sum(), rel=1e-8)


def test_the_length_of_z_does_not_matter():
    quantizer, z = BinarySphericalQuantizer(bits=6), torch.randn(50, 6)
    torch.testing.assert_close(quantizer(1000 * z).loss, quantizer(z).loss)
    assert torch.equal(quantizer.encode(1000 * z), quantizer.encode(z))


def test_codes_and_indices_are_a_bijection_of_unit_vectors():
    quantizer, every = BinarySphericalQuantizer(bits=9), torch.arange(512)
    codes = quantizer.decode(every)
    assert torch.equal(quantizer.encode(codes), every)
    torch.testing.assert_close(codes.norm(dim=1), torch.ones(512))


def test_the_gradient_passes_the_sphere():
    z = torch.randn(10, 6, dtype=torch.float64, requires_grad=True)
    direction = torch.randn(10, 6, dtype=torch.float64)
    (BinarySphericalQuantizer(bits=6)(z).quantized * direction).sum().backward()
    other = z.detach().clone().requires_grad_()
    ((other / other.norm(dim=1, keepdim=True)) * direction).sum().backward()
    torch.testing.assert_close(z.grad, other.grad)


def test_a_zero_vector_is_the_code_of_minus_signs():
    out = BinarySphericalQuantizer(bits=4)(torch.zeros(1, 4))
    assert out.indices.tolist() == [0]
    assert out.loss.isfinite()


def test_invalid_arguments_raise():
    with pytest.raises(ValueError, match="BinarySphericalQuantizer: expected 1 to 62 bits, got 63"):
        BinarySphericalQuantizer(bits=63)
