"""Carry VQ: digits from one codebook, packed with the first digit least significant."""

import pytest
import torch

from vq.quantizers import CarryQuantizer, LearnedCodebook, NormalInit, VectorQuantizer


def made(base=4, digits=3, dim=5):
    codebook = LearnedCodebook(size=base, dim=-(-dim // digits), init=NormalInit())
    return CarryQuantizer(quantizer=VectorQuantizer(codebook=codebook), digits=digits, dim=dim).eval()


def test_indices_are_numbers_of_shared_digits():
    quantizer = made()
    codes = quantizer.product.parts[0].codebook.vectors.detach()
    z = torch.randn(50, 5)
    digits = torch.cdist(torch.nn.functional.pad(z, (0, 1)).reshape(50, 3, 2), codes).argmin(-1)
    out = quantizer(z)
    assert torch.equal(out.indices, digits @ torch.tensor([1, 4, 16]))
    assert torch.equal(out.quantized, codes[digits].reshape(50, 6)[:, :5])
    assert torch.equal(quantizer.digits(out.indices), digits)
    assert torch.equal(quantizer.packed(digits), out.indices)


def test_the_size_is_base_to_the_digits_and_every_index_comes_back():
    quantizer = made(dim=6)
    assert quantizer.codebook_size == 4**3
    assert sum(p.numel() for p in quantizer.parameters()) == 4 * 2
    indices = torch.arange(64)
    assert torch.equal(quantizer.encode(quantizer.decode(indices)), indices)


def test_invalid_arguments_raise():
    with pytest.raises(ValueError, match="CarryQuantizer: expected at least one digit, got 0"):
        CarryQuantizer(quantizer=VectorQuantizer.example(), digits=0)
    with pytest.raises(ValueError, match="expected a dim above 8 and up to 12"):
        CarryQuantizer(quantizer=VectorQuantizer.example(), digits=3, dim=8)


def test_each_digit_is_in_the_range_of_the_base():
    assert made(base=4).packed(torch.tensor([[0, 3, 0]])).tolist() == [12]
    for digits in ([-1, 2, 0], [0, 4, 0]):
        with pytest.raises(ValueError, match=r"expected 3 digits in \[0, 4\) on the last axis"):
            made(base=4).packed(torch.tensor([digits]))
