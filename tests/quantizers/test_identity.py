"""Identity: z is returned, and its bytes are the indices."""

import numpy as np
import pytest
import torch

from vq.quantizers import IdentityQuantizer, ResidualQuantizer


def test_indices_are_the_bytes_of_float32_little_endian():
    z = torch.randn(100, 3) * torch.logspace(-40, 38, 100)[:, None]
    indices = IdentityQuantizer(dim=3).encode(z)
    expected = z.numpy().astype("<f4").view(np.uint8).reshape(100, 3, 4)
    np.testing.assert_array_equal(indices.numpy(), expected)


def test_decode_restores_every_finite_value_bit_for_bit():
    special = torch.tensor([[0.0, -0.0, 1e-45, -1e-45, 3.4028235e38, -3.4028235e38, 1.0, -1.0]])
    quantizer = IdentityQuantizer(dim=8)
    decoded = quantizer.decode(quantizer.encode(special))
    assert torch.equal(decoded.view(torch.int32), special.view(torch.int32))


def test_the_gradient_passes_as_it_is_and_there_is_no_loss():
    z = torch.randn(5, 4, requires_grad=True)
    out = IdentityQuantizer(dim=4)(z)
    pull = torch.randn(5, 4)
    (out.quantized * pull).sum().backward()
    assert torch.equal(z.grad, pull)
    assert torch.equal(out.quantized, z)
    assert out.loss.item() == 0


def test_invalid_arguments_raise():
    with pytest.raises(ValueError, match="IdentityQuantizer: expected a positive dim, got 0"):
        IdentityQuantizer(dim=0)
    with pytest.raises(ValueError, match="decode: expected indices whose last axes are"):
        IdentityQuantizer(dim=4).decode(torch.zeros(3, dtype=torch.int64))
    with pytest.raises(ValueError, match="with one index per vector"):
        ResidualQuantizer(quantizers=[IdentityQuantizer(dim=4)])
