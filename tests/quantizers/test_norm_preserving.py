"""The norm-preserving cosine search against its formula, and what its indices cost."""

import pytest
import torch
from torch.nn import functional as F

from vq.quantizers import (
    CosineDistance,
    EMACodebook,
    FiniteScalarQuantizer,
    LearnedCodebook,
    NormalInit,
    NormPreservingQuantizer,
    RotationTrick,
    VectorQuantizer,
)


def make(size: int = 16, **options) -> NormPreservingQuantizer:
    torch.manual_seed(0)
    codebook = LearnedCodebook(size=size, dim=4, init=NormalInit(std=3.0))
    inner = VectorQuantizer(codebook=codebook, distance=CosineDistance(), **options)
    return NormPreservingQuantizer(quantizer=inner)


def test_equals_the_published_formula_with_its_gradient():
    quantizer = make().double()
    weight = quantizer.quantizer.codebook.weight
    z = torch.randn(200, 4, dtype=torch.float64, requires_grad=True)
    out = quantizer(z)
    u, e = F.normalize(z, dim=1), F.normalize(weight, dim=1)
    index = (u @ e.T).argmax(dim=1)
    size = z.norm(dim=1, keepdim=True)
    assert torch.equal(out.indices[:, 0], index)
    # The length is kept in float32.
    torch.testing.assert_close(out.quantized, size * e[index], rtol=1e-7, atol=0)
    # Straight through on the sphere, times the length.
    expected = size * (u + (e[index] - u).detach())
    g = torch.randn_like(z)
    (found,) = torch.autograd.grad(out.quantized, z, g, retain_graph=True)
    (by_formula,) = torch.autograd.grad(expected, z, g, retain_graph=True)
    torch.testing.assert_close(found, by_formula, rtol=1e-6, atol=1e-7)
    # vqtorch passes g unchanged: the two differ along z alone, by the part of g in which u and e differ.
    along = ((e[index] - u) * g).sum(dim=1, keepdim=True) * u
    torch.testing.assert_close(found - g, along.detach(), rtol=1e-6, atol=1e-7)
    loss = (u.detach() - e[index]).square().mean() + 0.25 * (u - e[index].detach()).square().mean()
    torch.testing.assert_close(out.loss, loss)
    for a, b in zip(
        torch.autograd.grad(out.loss, [z, weight]), torch.autograd.grad(loss, [z, weight]), strict=True
    ):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("size", [2, 3, 16, 256, 1000, 2**16, 2**16 + 1])
def test_the_indices_are_a_code_and_the_digits_of_the_length(size):
    quantizer = make(size).eval()
    z = torch.tensor([[3.0, 0, 4, 0], [0, 0, 0, 0]])
    out = quantizer(z)
    count = quantizer.index_shape[0] - 1
    assert size ** (count - 1) < 2**32 <= size**count
    assert out.indices[0, 1:].tolist() == [
        0x40A00000 // size**i % size for i in range(count)
    ]  # the bits of 5.0
    assert not out.indices[1, 1:].any()
    assert torch.equal(quantizer.decode(out.indices), out.quantized)
    torch.testing.assert_close(out.quantized.norm(dim=1), torch.tensor([5.0, 0.0]))


def test_a_longer_vector_has_the_same_code_and_a_longer_quantized_vector():
    quantizer = make().eval()
    z = torch.randn(100, 4)
    one, two = quantizer(z), quantizer(2 * z)
    assert torch.equal(one.indices[:, 0], two.indices[:, 0])
    torch.testing.assert_close(two.quantized, 2 * one.quantized)


def test_every_index_in_range_decodes():
    quantizer = make(300)
    assert quantizer.decode(torch.full((5,), 299)).shape == (4,)


def test_the_estimator_of_the_directions_is_used():
    plain, rotated = make(), make(estimator=RotationTrick())
    z = torch.randn(20, 4, requires_grad=True)
    g = torch.randn(20, 4)
    a, b = (torch.autograd.grad(each(z).quantized, z, g)[0] for each in (plain, rotated))
    assert not torch.allclose(a, b)


@pytest.mark.parametrize(
    ("inner", "found"),
    [
        (VectorQuantizer(codebook=EMACodebook.example()), "VectorQuantizer with EuclideanDistance"),
        (FiniteScalarQuantizer(levels=[5, 5]), "FiniteScalarQuantizer"),
    ],
)
def test_a_quantizer_whose_codes_have_other_lengths_is_refused(inner, found):
    with pytest.raises(
        ValueError, match=f"expected a VectorQuantizer with CosineDistance.*, got {found}; give"
    ):
        NormPreservingQuantizer(quantizer=inner)


def test_a_single_code_is_refused():
    with pytest.raises(ValueError, match="expected a codebook of at least 2 codes, got 1; give it more"):
        make(1)
