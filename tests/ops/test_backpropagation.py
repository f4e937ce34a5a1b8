"""The soft gradient of a hard choice: equal to that of full (vectors x codes) tensors, without their memory."""

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from vq.ops import entropy
from vq.ops.backpropagation import choose_with_soft_gradient
from vq.ops.distance import largest_product


def inputs(n=37, size=29, dim=5):
    generator = torch.Generator().manual_seed(0)
    z, codes = (torch.randn(k, dim, generator=generator, dtype=torch.float64) for k in (n, size))
    return z.requires_grad_(), codes.requires_grad_()


def naive(z, codes):
    probabilities = (z @ codes.T).softmax(dim=1)
    hard = torch.nn.functional.one_hot(probabilities.argmax(1), len(codes)).to(z)
    return (hard + probabilities - probabilities.detach()) @ codes


@pytest.mark.parametrize("tile", [2**20, 7 * 29])
def test_values_and_gradients_are_those_of_the_full_tables(monkeypatch, tile):
    monkeypatch.setattr(entropy, "CPU_TILE", tile)
    monkeypatch.setattr(entropy, "MIN_ROWS", 1)
    z, codes = inputs()
    found = choose_with_soft_gradient(z, codes, largest_product(z, codes))
    expected = naive(z, codes)
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)
    pull = torch.randn_like(z)
    for a, b in zip(
        torch.autograd.grad(found, (z, codes), pull),
        torch.autograd.grad(expected, (z, codes), pull),
        strict=True,
    ):
        torch.testing.assert_close(a, b, atol=1e-12, rtol=1e-10)


def test_every_code_gets_a_gradient_and_the_value_is_the_code():
    z, codes = inputs(n=3)
    indices = largest_product(z, codes)
    found = choose_with_soft_gradient(z, codes, indices)
    assert torch.equal(found, codes[indices])
    found.square().sum().backward()
    assert (codes.grad.abs().sum(dim=1) > 0).all()


# opcheck reads the gradients of tensors that are not leaves, about which torch warns.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
def test_the_operators_are_in_order():
    z, codes = inputs()
    ops = torch.ops.vq
    torch.library.opcheck(
        ops.choose_with_soft_gradient.default, (z, codes, torch.arange(29)[:5].repeat(8)[:37])
    )
    torch.library.opcheck(ops.nearest_code.default, (z.detach(), codes.detach(), False))


def test_largest_product_is_the_argmax_and_the_lowest_of_equals():
    z, codes = inputs(n=500, size=200)
    assert torch.equal(largest_product(z, codes), (z @ codes.T).argmax(1))
    assert largest_product(torch.ones(1, 2), torch.tensor([[0.0, 1.0], [2.0, 0.0], [0.0, 2.0]])).item() == 1


def test_no_table_of_vectors_times_codes_is_made():
    z, codes = torch.randn(4096, 8, requires_grad=True), torch.randn(8192, 8, requires_grad=True)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as seen:
        choose_with_soft_gradient(z, codes, largest_product(z, codes)).sum().backward()
    largest = max(event.self_cpu_memory_usage for event in seen.events())
    assert largest < 4096 * 8192 * 4 / 8
