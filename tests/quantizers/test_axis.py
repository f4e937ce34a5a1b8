"""Quantization along any axis."""

import pytest
import torch

from vq.quantizers import (
    AxisQuantizer,
    EMACodebook,
    LearnedCodebook,
    NormalInit,
    ResidualQuantizer,
    VectorQuantizer,
    accumulate,
)


def plain(dim=3):
    return VectorQuantizer(codebook=LearnedCodebook(size=8, dim=dim, init=NormalInit()))


@pytest.mark.parametrize(
    ("shape", "dim"),
    [((2, 3, 5, 7), 1), ((2, 5, 3), 2), ((4, 3), 1), ((3, 4), 0), ((3,), 0), ((3, 5, 2), -3)],
)
def test_it_is_the_quantizer_with_the_axis_moved(shape, dim):
    torch.manual_seed(0)
    inner = plain()
    quantizer = AxisQuantizer(quantizer=inner, dim=dim).eval()
    z = torch.randn(shape)
    out, expected = quantizer(z), inner(z.movedim(dim, -1))
    assert out.quantized.shape == z.shape
    assert torch.equal(out.quantized, expected.quantized.movedim(-1, dim))
    assert torch.equal(out.indices, expected.indices)
    assert torch.equal(out.loss, expected.loss)
    assert torch.equal(quantizer.encode(z), out.indices)
    assert torch.equal(quantizer.decode(out.indices), out.quantized)


def test_stages_stay_the_last_axis_of_the_indices():
    quantizer = AxisQuantizer(quantizer=ResidualQuantizer(quantizers=[plain()], depth=2), dim=1).eval()
    z = torch.randn(2, 3, 5, 7)
    out = quantizer(z)
    assert out.indices.shape == (2, 5, 7, 2)
    assert torch.equal(quantizer.decode(out.indices), out.quantized)


def test_a_mask_has_the_axes_without_the_code_axis():
    quantizer = AxisQuantizer(quantizer=plain(), dim=1)
    z, mask = torch.randn(2, 3, 5), torch.ones(2, 5, dtype=torch.bool)
    mask[1, 2:] = False
    broken = torch.where(mask[:, None], z, torch.nan)
    assert torch.equal(quantizer(broken, mask).loss, quantizer(z, mask).loss)


def test_the_codebook_inside_learns_and_accumulates():
    inner = VectorQuantizer(codebook=EMACodebook(size=8, dim=3, init=NormalInit()))
    quantizer = AxisQuantizer(quantizer=inner, dim=1)
    before = inner.codebook.vectors.clone()
    with accumulate(quantizer):
        quantizer(torch.randn(2, 3, 5))
    assert torch.equal(inner.codebook.vectors, before)
    quantizer(torch.randn(2, 3, 5))
    assert not torch.equal(inner.codebook.vectors, before)


def test_invalid_arguments_raise():
    quantizer = AxisQuantizer(quantizer=plain(), dim=1)
    with pytest.raises(
        ValueError, match=r"expected z with the axis 1 \(dim\) of length 3 .*got the shape \(2, 5, 3\)"
    ):
        quantizer(torch.randn(2, 5, 3))
    with pytest.raises(ValueError, match=r"AxisQuantizer: expected z with the axis 1 \(dim\)"):
        quantizer.encode(torch.randn(3))
    with pytest.raises(ValueError, match=r"AxisQuantizer.decode: expected indices of vectors with an axis 1"):
        quantizer.decode(torch.tensor(0))
    with pytest.raises(ValueError, match="expected finite z, got 1 values"):
        quantizer.encode(torch.full((1, 3, 1), 0.0).index_fill(1, torch.tensor([1]), torch.nan))
