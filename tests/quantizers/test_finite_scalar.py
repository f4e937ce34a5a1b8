"""FSQ: the paper's equation in float64 NumPy, all indices, and saturation."""

import numpy as np
import pytest
import torch

from vq.quantizers import FiniteScalarQuantizer, SimpleFiniteScalarQuantizer

PAPER_LEVELS = [[8, 6, 5], [8, 5, 5, 5], [7, 5, 5, 5, 5], [8, 8, 8, 6, 5], [8, 8, 8, 5, 5, 5]]


def reference(z, levels, shift):
    """Eq. 1 and appendix A.1: codes and indices."""
    levels = np.array(levels)
    half = (levels - 1) * (1 - 1e-3) / 2
    offset = np.where(levels % 2 == 0, 0.5, 0.0)
    rounded = np.round(half * np.tanh(z + shift(offset / half)) - offset)
    basis = np.cumprod([1, *levels[:-1]])
    return rounded / (levels // 2), ((rounded + levels // 2) * basis).sum(-1).astype(np.int64)


@pytest.mark.parametrize("levels", PAPER_LEVELS, ids=str)
@pytest.mark.parametrize(("shift", "function"), [("atanh", np.arctanh), ("tan", np.tan)])
def test_equals_the_papers_equation(levels, shift, function):
    z = torch.randn(5000, len(levels), dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 2
    out = FiniteScalarQuantizer(levels=levels, shift=shift)(z)
    codes, indices = reference(z.numpy(), levels, function)
    np.testing.assert_allclose(out.quantized, codes, atol=1e-12)
    assert torch.equal(out.indices, torch.from_numpy(indices))


@pytest.mark.parametrize("levels", PAPER_LEVELS, ids=str)
def test_every_index_is_the_index_of_some_z(levels):
    quantizer = FiniteScalarQuantizer(levels=levels)
    every = torch.arange(quantizer.codebook_size)
    sizes = np.array(levels)
    half, offset = (sizes - 1) * (1 - 1e-3) / 2, np.where(sizes % 2 == 0, 0.5, 0.0)
    rounded = quantizer.decode(every).double().numpy() * (sizes // 2)
    # The outermost levels are moved inwards by a quarter of a step, so that atanh is finite.
    inner = np.clip((rounded + offset) / half, -1 + 0.25 / half, 1 - 0.25 / half)
    z = torch.from_numpy(np.arctanh(inner) - np.arctanh(offset / half)).float()
    assert torch.equal(quantizer.encode(z), every)


def test_codes_are_in_the_unit_interval_and_even_levels_miss_the_upper_end():
    codes = FiniteScalarQuantizer(levels=[8, 5]).decode(torch.arange(40))
    assert codes[:, 0].unique().tolist() == [-1, -0.75, -0.5, -0.25, 0, 0.25, 0.5, 0.75]
    assert codes[:, 1].unique().tolist() == [-1, -0.5, 0, 0.5, 1]


def test_infinite_z_is_an_outermost_code():
    quantizer = FiniteScalarQuantizer(levels=[8, 5])
    out = quantizer(torch.tensor([[torch.inf, -torch.inf], [1e4, -1e4]]))
    assert out.indices.tolist() == [7, 7]


def test_the_gradient_is_that_of_the_bounded_z():
    z = torch.tensor([[0.3, -0.7]], requires_grad=True)
    FiniteScalarQuantizer(levels=[5, 5])(z).quantized.sum().backward()
    half = 4 * (1 - 1e-3) / 2
    torch.testing.assert_close(z.grad, half * (1 - torch.tanh(z.detach()) ** 2) / 2)


def test_a_module_in_half_precision_keeps_its_indices():
    z = torch.randn(4000, 6)
    quantizer = FiniteScalarQuantizer(levels=[8, 8, 8, 5, 5, 5])
    expected = quantizer.encode(z)
    assert torch.equal(quantizer.half().encode(z), expected)
    assert torch.equal(quantizer.bfloat16().encode(z), expected)


def test_it_has_no_state_and_no_loss():
    quantizer = FiniteScalarQuantizer(levels=[5, 5])
    assert not quantizer.state_dict()
    assert quantizer(torch.randn(3, 2)).loss == 0


@pytest.mark.parametrize("levels", PAPER_LEVELS, ids=str)
def test_the_simple_form_equals_its_equation(levels):
    z = torch.randn(5000, len(levels), dtype=torch.float64) * 2
    last = np.array(levels) - 1
    n = np.round(last / (1 + np.exp(-z.numpy())))
    out = SimpleFiniteScalarQuantizer(levels=levels)(z)
    np.testing.assert_allclose(out.quantized, n / last, atol=1e-12)
    basis = np.cumprod([1, *levels[:-1]])
    np.testing.assert_array_equal(out.indices, (n @ basis).astype(np.int64))


@pytest.mark.parametrize("levels", PAPER_LEVELS, ids=str)
def test_the_simple_form_is_fsq_in_other_coordinates(levels):
    z = torch.randn(100_000, len(levels), dtype=torch.float64) * 2
    sizes = torch.tensor(levels, dtype=torch.float64)
    shift = torch.atanh((1 - sizes % 2) / (sizes - 1))
    same = SimpleFiniteScalarQuantizer(levels=levels).encode(2 * (z + shift))
    assert torch.equal(same, FiniteScalarQuantizer(levels=levels, eps=0.0).encode(z))


def test_every_index_of_the_simple_form_is_the_index_of_some_z():
    quantizer = SimpleFiniteScalarQuantizer(levels=[8, 6, 5])
    codes = quantizer.decode(torch.arange(240))
    assert codes.min() == 0
    assert codes.max() == 1
    assert torch.equal(quantizer.encode(codes.clamp(0.01, 0.99).logit()), torch.arange(240))
    assert quantizer(torch.tensor([[torch.inf, -torch.inf, 0.0]])).indices.tolist() == [7 + 48 * 2]


CLASSES = [FiniteScalarQuantizer, SimpleFiniteScalarQuantizer]


@pytest.mark.parametrize("levels", [[8, 6, 5], [5, 5, 5]], ids=str)
def test_the_noise_is_that_of_stable_codec(levels):
    """tanh(x) plus uniform noise of the width 2 / (L - 1), on levels from -1 to 1; the gradient is that of tanh(x)."""
    x = torch.randn(4000, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    out = SimpleFiniteScalarQuantizer(levels=levels, noise_rate=1.0)(2 * x)
    noise = ((2 * out.quantized - 1) - torch.tanh(x)).detach().numpy() * (np.array(levels) - 1) / 2
    assert noise.min() >= -0.5
    assert noise.max() < 0.5
    np.testing.assert_allclose(
        np.quantile(noise, [0.1, 0.25, 0.5, 0.9], axis=0).T, [[-0.4, -0.25, 0, 0.4]] * 3, atol=0.03
    )
    assert abs(np.corrcoef(noise.T) - np.eye(3)).max() < 0.06
    (gradient,) = torch.autograd.grad((2 * out.quantized - 1).square().sum() / 2, x)
    expected = (2 * out.quantized - 1) * (1 - torch.tanh(x) ** 2)
    torch.testing.assert_close(gradient, expected.detach())


@pytest.mark.parametrize("levels", PAPER_LEVELS, ids=str)
def test_the_noise_of_fsq_has_the_width_of_a_step(levels):
    sizes, half = np.array(levels), (np.array(levels) - 1) * (1 - 1e-3) / 2
    offset = np.where(sizes % 2 == 0, 0.5, 0.0)
    z = torch.randn(2000, len(levels), dtype=torch.float64, requires_grad=True)
    out = FiniteScalarQuantizer(levels=levels, noise_rate=1.0)(z)
    bounded = half * np.tanh(z.detach().numpy() + np.arctanh(offset / half)) - offset
    noise = out.quantized.detach().numpy() * (sizes // 2) - bounded
    assert noise.min() >= -0.5
    assert noise.max() < 0.5
    np.testing.assert_allclose(noise.std(axis=0), 12**-0.5, atol=0.015)
    plain = FiniteScalarQuantizer(levels=levels)
    (gradient,) = torch.autograd.grad(out.quantized.sum(), z)
    (expected,) = torch.autograd.grad(plain(z).quantized.sum(), z)
    torch.testing.assert_close(gradient, expected)


@pytest.mark.parametrize("cls", CLASSES)
def test_noise_reaches_whole_examples_of_training_alone_and_no_index(cls):
    torch.manual_seed(0)
    quantizer, plain = cls(levels=[8, 5], noise_rate=0.3), cls(levels=[8, 5])
    z = torch.randn(2000, 3, 2)
    out, rounded = quantizer(z), plain(z)
    assert torch.equal(out.indices, rounded.indices)
    is_noisy = (out.quantized != rounded.quantized).flatten(1)
    assert (is_noisy.all(1) | ~is_noisy.any(1)).all()
    assert is_noisy.any(1).float().mean() == pytest.approx(0.3, abs=0.05)
    assert torch.equal(quantizer.eval()(z).quantized, rounded.quantized)
    assert quantizer.train()(torch.randn(2)).quantized.shape == (2,)


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize("rate", [-0.1, 1.5])
def test_a_noise_rate_that_is_no_fraction_is_refused(cls, rate):
    with pytest.raises(ValueError, match=rf"{cls.__name__}: expected a noise_rate in \[0, 1\], got {rate}"):
        cls(levels=[5, 5], noise_rate=rate)


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize("levels", [[], [8, 2, 5]])
def test_too_few_levels_are_refused(cls, levels):
    with pytest.raises(ValueError, match=f"{cls.__name__}: expected levels of at least 3, got"):
        cls(levels=levels)


@pytest.mark.parametrize("cls", CLASSES)
def test_more_codes_than_int64_holds_are_refused(cls):
    with pytest.raises(ValueError, match=r"expected fewer than 2\^63 codes"):
        cls(levels=[8] * 21)
