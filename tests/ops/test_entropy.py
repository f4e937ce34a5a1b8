"""Tiled entropies against the full (vectors x codes) tensor in float64, with their gradients."""

import math

import numpy as np
import pytest
import torch
from scipy.special import softmax
from scipy.stats import entropy as scipy_entropy

import vq.ops.entropy as module
from vq.ops.backpropagation import choose_with_soft_gradient
from vq.ops.distance import largest_product
from vq.ops.entropy import bit_distribution_sum, bit_entropy, distance_logits, entropy, softmax_sums


@pytest.fixture(params=[2**20, 64], ids=["one tile", "many tiles"])
def _tiles(request, monkeypatch):
    monkeypatch.setattr(module, "CPU_TILE", request.param)
    monkeypatch.setattr(module, "MIN_ROWS", 1)


def plain_sums(z, codes, bias, weight):
    log_p = (z @ codes.T + bias).log_softmax(dim=1)
    p = log_p.exp()
    return weight @ -(p * log_p).sum(1), weight @ p


def chosen(z, codes):
    return choose_with_soft_gradient(z, codes, largest_product(z, codes)).square().sum()


@pytest.mark.parametrize(
    ("function", "shapes"),
    [
        (lambda z, codes, bias: softmax_sums(z, codes, bias, torch.ones(7))[0], ((7, 3), (5, 3), (5,))),
        (lambda logits: bit_distribution_sum(logits, torch.ones(7)).square().sum(), ((7, 4),)),
        (chosen, ((7, 3), (5, 3))),
    ],
    ids=["softmax", "bits", "choice"],
)
def test_a_backward_pass_inside_autocast_gives_the_gradients_of_one_outside(function, shapes):
    gradients = []
    for is_inside in (False, True):
        torch.manual_seed(0)
        inputs = [torch.randn(*shape, requires_grad=True) for shape in shapes]
        result = function(*inputs)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=is_inside):
            result.backward()
        gradients.append([x.grad for x in inputs])
    assert all(map(torch.equal, *gradients))


@pytest.mark.usefixtures("_tiles")
def test_softmax_sums_and_gradients_equal_the_whole_table():
    arguments = [torch.randn(*s, dtype=torch.float64, requires_grad=True) for s in [(23, 3), (10, 3), (10,)]]
    weight = torch.tensor([1.0, 0.0, 2.0] * 8, dtype=torch.float64)[:23]
    direction = torch.randn(10, dtype=torch.float64)
    results = []
    for function in (softmax_sums, plain_sums):
        entropies, distribution = function(*arguments, weight)
        gradients = torch.autograd.grad(2 * entropies + (distribution**2) @ direction, arguments)
        results.append((entropies, distribution, *gradients))
    torch.testing.assert_close(*results, rtol=1e-10, atol=1e-10)


def test_the_probabilities_are_those_of_minus_the_squared_distance():
    z, codes, tau = np.random.default_rng(0).normal(size=(7, 3)), np.eye(3), 0.7
    p = softmax(-((z[:, None] - codes) ** 2).sum(-1) / tau, axis=1)
    scaled, bias = distance_logits(torch.from_numpy(z), torch.from_numpy(codes), tau)
    weight = torch.ones(7, dtype=torch.float64)
    entropies, distribution = softmax_sums(scaled, torch.from_numpy(codes), bias, weight)
    assert entropies.item() == pytest.approx(scipy_entropy(p, axis=1).sum())
    np.testing.assert_allclose(distribution, p.sum(0))


def test_moving_z_towards_its_code_lowers_the_entropy():
    # With plus the distance, as in some implementations, it would rise.
    codes, z = torch.tensor([[0.0], [1.0]]), torch.tensor([[0.3]], requires_grad=True)
    scaled, bias = distance_logits(z, codes, 1.0)
    softmax_sums(scaled, codes, bias, torch.ones(1))[0].backward()
    assert z.grad > 0  # the loss falls towards the code at 0


@pytest.mark.usefixtures("_tiles")
@pytest.mark.parametrize("bits", [1, 2, 5, 8])
def test_bit_patterns_and_gradients_equal_the_product_of_bernoullis(bits):
    logits = torch.randn(50, bits, dtype=torch.float64, requires_grad=True)
    weight = torch.rand(50, dtype=torch.float64)
    has_bit = (torch.arange(2**bits)[:, None] >> torch.arange(bits) & 1).bool()
    q = logits.sigmoid()[:, None]
    whole = weight @ torch.where(has_bit, q, 1 - q).prod(dim=2)
    streamed = bit_distribution_sum(logits, weight)
    torch.testing.assert_close(streamed, whole, rtol=1e-12, atol=1e-12)
    direction = torch.randn(2**bits, dtype=torch.float64)
    gradients = [torch.autograd.grad(out @ direction, logits)[0] for out in (streamed, whole)]
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-10)


def test_bit_entropy_is_that_of_a_coin():
    logits = torch.linspace(-30, 30, 61, dtype=torch.float64)
    q = 1 / (1 + np.exp(-logits.numpy()))
    np.testing.assert_allclose(bit_entropy(logits), scipy_entropy([q, 1 - q]), atol=1e-12)
    assert bit_entropy(torch.tensor([1e30, -1e30])).tolist() == [0, 0]


def test_entropy_of_unused_codes_is_finite_with_a_finite_gradient():
    p = torch.tensor([0.5, 0.5, 0.0], requires_grad=True)
    entropy(p).backward()
    assert entropy(p).item() == pytest.approx(math.log(2))
    assert p.grad.isfinite().all()


def test_large_scores_do_not_overflow():
    z, codes = torch.tensor([[1e4, -1e4]], requires_grad=True), torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    entropies, distribution = softmax_sums(z, codes, torch.zeros(2), torch.ones(1))
    (entropies + distribution.sum()).backward()
    assert entropies.item() == 0
    assert distribution.tolist() == [1, 0]
    assert z.grad.isfinite().all()


def test_no_vectors_give_zeros():
    assert bit_distribution_sum(torch.zeros(0, 3), torch.zeros(0)).tolist() == [0] * 8
    entropies, distribution = softmax_sums(
        torch.zeros(0, 2), torch.zeros(4, 2), torch.zeros(4), torch.zeros(0)
    )
    assert entropies == 0
    assert distribution.tolist() == [0] * 4


# opcheck reads the gradients of tensors that are not leaves, about which torch warns.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
def test_the_operators_are_well_formed():
    logits, weight = torch.randn(6, 4, requires_grad=True), torch.rand(6)
    torch.library.opcheck(torch.ops.vq.bit_distribution_sum.default, (logits, weight))
    arguments = tuple(torch.randn(*s, requires_grad=True) for s in [(6, 3), (5, 3), (5,)])
    torch.library.opcheck(torch.ops.vq.softmax_sums.default, (*arguments, weight))
