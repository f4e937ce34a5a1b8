"""Product quantization: each part by itself, shared codes learn once."""

import pytest
import torch

from vq.quantizers import EMACodebook, LearnedCodebook, NormalInit, ProductQuantizer, VectorQuantizer


def learned(size=16, dim=4):
    return VectorQuantizer(codebook=LearnedCodebook(size=size, dim=dim, init=NormalInit()))


def test_each_part_is_quantized_by_itself():
    torch.manual_seed(0)
    first, second = learned(dim=4), learned(dim=2)
    quantizer = ProductQuantizer(quantizers=[first, second]).eval()
    z = torch.randn(30, 6)
    out = quantizer(z)
    a, b = first(z[:, :4]), second(z[:, 4:])
    assert torch.equal(out.quantized, torch.cat([a.quantized, b.quantized], dim=-1))
    assert torch.equal(out.indices, torch.stack([a.indices, b.indices], dim=-1))
    torch.testing.assert_close(out.loss, (a.loss + b.loss) / 2)


def test_one_group_is_the_quantizer_itself():
    torch.manual_seed(0)
    part = learned()
    z = torch.randn(9, 4)
    whole, plain = ProductQuantizer(quantizers=[part]).eval()(z), part.eval()(z)
    assert torch.equal(whole.quantized, plain.quantized)
    torch.testing.assert_close(whole.loss, plain.loss)


def test_equal_groups_have_the_loss_of_the_whole_vector():
    torch.manual_seed(0)
    quantizer = ProductQuantizer(quantizers=[learned(dim=2)], groups=3).eval()
    z = torch.randn(40, 6)
    out = quantizer(z)
    torch.testing.assert_close(out.loss, 1.25 * (z - out.quantized.detach()).square().mean())


def test_a_shared_codebook_learns_once_from_all_groups():
    torch.manual_seed(0)
    shared = VectorQuantizer(codebook=EMACodebook(size=8, dim=2, init=NormalInit(), decay=0.9))
    usage = shared.codebook.usage.clone()
    out = ProductQuantizer(quantizers=[shared], groups=3).train()(torch.randn(100, 6))
    counts = torch.bincount(out.indices.flatten(), minlength=8)
    torch.testing.assert_close(shared.codebook.usage, 0.9 * usage + 0.1 * counts)


def test_what_is_refused():
    with pytest.raises(ValueError, match="expected one quantizer to share over groups"):
        ProductQuantizer(quantizers=[learned(), learned()], groups=3)
    with pytest.raises(ValueError, match="expected parts of one codebook_size"):
        ProductQuantizer(quantizers=[learned(16), learned(8)])
