"""LFQ: signs, the entropies of the paper by enumeration in float64 NumPy, and the effect of the entropy loss."""

import math

import numpy as np
import pytest
import torch
from scipy.special import softmax
from scipy.stats import entropy
from torch import nn

from vq.ops.digits import reverse_digits
from vq.quantizers import LookupFreeQuantizer


def every_code(bits):
    return (np.arange(2**bits)[:, None] >> np.arange(bits) & 1) * 2.0 - 1


def reference(z, tau, sign=-1):
    """Computes E[H(p)] and H(E[p]) of eq. 4 over all codes."""
    distance = ((z[:, None] - every_code(z.shape[1])) ** 2).sum(-1)
    p = softmax(sign * distance / tau, axis=1)
    return entropy(p, axis=1).mean(), entropy(p.mean(0))


@pytest.mark.parametrize("tau", [0.01, 1.0])
@pytest.mark.parametrize("sign", [-1, 1])
def test_both_entropies_equal_brute_force_and_do_not_depend_on_the_sign(tau, sign):
    z = np.random.default_rng(0).normal(size=(300, 7))
    out = LookupFreeQuantizer(bits=7, temperature=tau)(torch.from_numpy(z))
    sample, codebook = reference(z, tau, sign)
    assert out.metrics["sample_entropy"].item() == pytest.approx(sample, rel=1e-8)
    assert out.metrics["codebook_entropy"].item() == pytest.approx(codebook, rel=1e-8)


def test_the_loss_is_the_weighted_sum():
    z = np.random.default_rng(0).normal(size=(300, 5))
    quantizer = LookupFreeQuantizer(
        bits=5, entropy_weight=0.3, diversity_weight=2.5, temperature=1.0, commitment_weight=0.7
    )
    sample, codebook = reference(z, 1.0)
    commitment = ((z - np.sign(z)) ** 2).mean()
    expected = 0.3 * (sample - 2.5 * codebook) + 0.7 * commitment
    assert quantizer(torch.from_numpy(z)).loss.item() == pytest.approx(expected, rel=1e-8)


def test_the_gradient_of_the_loss_is_that_of_brute_force():
    z = torch.randn(40, 4, dtype=torch.float64, requires_grad=True)
    LookupFreeQuantizer(bits=4, entropy_weight=1.0, temperature=0.5, commitment_weight=0.0)(z).loss.backward()
    whole = z.detach().clone().requires_grad_()
    distance = (whole[:, None] - torch.from_numpy(every_code(4))).square().sum(-1)
    p = (-distance / 0.5).softmax(dim=1)
    (-(p * p.log()).sum(1).mean() + (p.mean(0) * p.mean(0).log()).sum()).backward()
    torch.testing.assert_close(z.grad, whole.grad)


def test_groups_add_the_entropies_of_their_own_bits():
    z = np.random.default_rng(0).normal(size=(200, 6))
    out = LookupFreeQuantizer(bits=6, temperature=1.0, group_bits=3)(torch.from_numpy(z))
    expected = [reference(z[:, part], 1.0)[1] for part in (slice(0, 3), slice(3, 6))]
    assert out.metrics["codebook_entropy"].item() == pytest.approx(sum(expected), rel=1e-8)
    assert out.metrics["sample_entropy"].item() == pytest.approx(reference(z, 1.0)[0], rel=1e-8)
    # Seven bits in groups of at most three: 3, 2 and 2.
    uneven = LookupFreeQuantizer(bits=7, temperature=1.0, group_bits=3)
    assert uneven(torch.randn(50, 7)).metrics["codebook_entropy"] <= 7 * math.log(2) + 1e-5


def test_the_entropy_term_is_between_minus_log_size_and_0():
    even_and_decided = torch.from_numpy(every_code(4)).float()
    quantizer = LookupFreeQuantizer(bits=4, entropy_weight=1.0, commitment_weight=0.0)
    assert quantizer(even_and_decided).loss.item() == pytest.approx(-4 * math.log(2))
    assert quantizer(torch.zeros(9, 4)).loss.item() == pytest.approx(0, abs=1e-5)


def test_bit_i_of_the_index_is_the_sign_of_channel_i():
    quantizer = LookupFreeQuantizer(bits=10)
    every = torch.arange(1024)
    assert torch.equal(quantizer.encode(quantizer.decode(every)), every)
    np.testing.assert_array_equal(quantizer.decode(every), every_code(10))
    big_endian = reverse_digits(torch.tensor([1]), [2] * 10)
    assert quantizer.decode(big_endian).tolist() == [[-1.0] * 9 + [1.0]]
    assert quantizer.encode(torch.zeros(1, 10)).item() == 0


def test_62_bits_are_indices_too():
    quantizer = LookupFreeQuantizer(bits=62)
    top = torch.tensor([2**62 - 1, 2**61, 5])
    assert torch.equal(quantizer.encode(quantizer.decode(top)), top)
    assert quantizer(torch.randn(4, 62)).loss.isfinite()


def usage_after_training(entropy_weight):
    """Trains a linear autoencoder with 8 bits on data with a non-zero mean, and returns the usage."""
    torch.manual_seed(0)
    encoder, decoder = nn.Linear(16, 8), nn.Linear(8, 16)
    quantizer = LookupFreeQuantizer(bits=8, entropy_weight=entropy_weight)
    optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=1e-2)
    scale = torch.logspace(0, -1, 16)
    for _ in range(150):
        x = torch.randn(512, 16) * scale + 0.5
        out = quantizer(encoder(x))
        loss = (decoder(out.quantized) - x).square().mean() + out.loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    indices = quantizer.encode(encoder(torch.randn(8192, 16) * scale + 0.5))
    return len(indices.unique()) / 256


def test_it_collapses_without_the_entropy_term_and_uses_its_codes_with_it():
    # Two seeds gave 0.92 and 0.96 with the entropy loss, 0.15 and 0.24 without.
    assert usage_after_training(0.1) > 0.75
    assert usage_after_training(0.0) < 0.4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"bits": 0}, "LookupFreeQuantizer: expected 1 to 62 bits, got 0"),
        ({"bits": 63}, "expected 1 to 62 bits, got 63; an index is int64"),
        ({"bits": 4, "group_bits": 0}, r"expected group_bits in \[1, 24\], got 0"),
        ({"bits": 4, "temperature": 0.0}, r"expected a positive temperature, got 0\.0"),
    ],
)
def test_invalid_arguments_raise(arguments, message):
    with pytest.raises(ValueError, match=message):
        LookupFreeQuantizer(**arguments)


def test_the_defaults_are_those_of_open_magvit2():
    z, published = torch.randn(100, 6), {"entropy_weight": 0.1, "diversity_weight": 1.0, "temperature": 0.01}
    expected = LookupFreeQuantizer(bits=6, commitment_weight=0.25, **published)(z).loss
    assert torch.equal(LookupFreeQuantizer(bits=6)(z).loss, expected)
