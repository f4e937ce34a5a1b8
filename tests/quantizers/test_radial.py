"""Raq: the levels are sines, every index is reached by some z, and the outermost levels have a gradient."""

import numpy as np
import pytest
import torch

from vq.quantizers import RadialQuantizer


def test_equals_the_equation():
    levels = np.array([8, 6, 5, 3])
    z = torch.randn(5000, 4, dtype=torch.float64) * 2
    n = np.round((levels - 1) / (1 + np.exp(-z.numpy())))
    out = RadialQuantizer(levels=levels.tolist())(z)
    np.testing.assert_allclose(out.quantized, np.sin(np.pi * (n / (levels - 1) - 0.5)), atol=1e-12)
    np.testing.assert_array_equal(out.indices, (n @ np.array([1, 8, 48, 240])).astype(np.int64))


def test_the_levels_are_the_table_of_sines():
    codes = RadialQuantizer(levels=[5]).decode(torch.arange(5))[:, 0]
    torch.testing.assert_close(codes, torch.tensor([-1, -(0.5**0.5), 0, 0.5**0.5, 1]))


def test_every_index_is_the_index_of_some_z():
    quantizer, levels = RadialQuantizer(levels=[8, 6, 5]), torch.tensor([8, 6, 5])
    every = torch.arange(240)
    angle = torch.asin(quantizer.decode(every).double().clamp(-1, 1)) / torch.pi + 0.5
    # The ends are moved inwards by a quarter of a step, so that the logit is finite.
    inner = angle.clamp(0.25 / (levels - 1), 1 - 0.25 / (levels - 1))
    assert torch.equal(quantizer.encode(inner.logit()), every)


def test_the_outermost_levels_keep_a_gradient():
    z = torch.tensor([[6.0, -6.0, 0.0]], requires_grad=True)
    out = RadialQuantizer(levels=[5, 5, 5])(z)
    assert out.quantized.tolist() == [[1, -1, 0]]
    out.quantized.sum().backward()
    assert (z.grad > 0).all()


def test_a_module_in_half_precision_keeps_its_codes():
    quantizer = RadialQuantizer(levels=[8, 6, 5])
    codes = quantizer.decode(torch.arange(240))
    assert torch.equal(quantizer.half().decode(torch.arange(240)), codes)


def test_infinite_z_is_an_outermost_code():
    assert RadialQuantizer(levels=[8, 5])(torch.tensor([[torch.inf, -torch.inf]])).indices.tolist() == [7]


def test_too_few_levels_are_refused():
    with pytest.raises(ValueError, match="RadialQuantizer: expected levels of at least 3, got"):
        RadialQuantizer(levels=[2])
