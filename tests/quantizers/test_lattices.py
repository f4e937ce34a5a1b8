"""The shortest vectors of D4, E8 and the Leech lattice, and spherical Leech quantization."""

import pytest
import torch

from vq.quantizers import CosineDistance, FrozenCodebook, LatticeInit, VectorQuantizer
from vq.quantizers.parts.lattices import SIZES


@pytest.fixture(scope="module")
def leech() -> VectorQuantizer:
    codebook = FrozenCodebook(size=196_560, dim=24, init=LatticeInit())
    return VectorQuantizer(codebook=codebook, distance=CosineDistance(), commitment_weight=0.0).double()


def largest_products(z: torch.Tensor) -> torch.Tensor:
    """The largest product of each vector with a shortest vector of the Leech lattice, from its three shapes.

    The words of the Golay code are found as those of a self-dual code from the numbers that are no squares
    modulo 23, not from the generator polynomial of the package.
    """
    x = z.double()
    others = sorted(set(range(1, 23)) - {n * n % 23 for n in range(1, 23)})
    rows = torch.zeros(12, 24, dtype=torch.int64)
    for shift in range(11):
        rows[shift, [23, *((r + shift) % 23 for r in others)]] = 1
    rows[11] = 1
    words = torch.unique((torch.cartesian_prod(*[torch.arange(2)] * 12) @ rows) % 2, dim=0)
    assert len(words) == 4096

    fours = 4 * x.abs().topk(2).values.sum(1)
    octads = words[words.sum(1) == 8].nonzero()[:, 1].view(759, 8)
    chosen = x[:, octads]
    is_odd = (chosen < 0).sum(2) % 2
    twos = (2 * (chosen.abs().sum(2) - 2 * is_odd * chosen.abs().amin(2))).amax(1)
    signed = x[:, None] * (1 - 2 * words)
    threes = (signed.sum(2) - 4 * signed.amin(2)).amax(1)
    return torch.stack([fours, twos, threes]).amax(0) / 32**0.5


@pytest.mark.parametrize("dim", SIZES)
def test_codes_have_length_1_and_no_two_are_nearer_than_1(dim):
    codes = LatticeInit().draw(SIZES[dim], dim).double()
    torch.testing.assert_close(codes.norm(dim=1), torch.ones(len(codes), dtype=torch.float64))
    some = torch.linspace(0, len(codes) - 1, 40).long()
    products = codes[some] @ codes.T
    assert torch.isclose(products.amin(1), torch.tensor(-1.0, dtype=torch.float64)).all()
    products[torch.arange(40), some] = 0
    assert products.max() < 0.5 + 1e-6


def test_leech_quantization_finds_the_largest_product_of_all_vectors_of_the_lattice(leech):
    torch.manual_seed(0)
    z = torch.randn(30, 24, dtype=torch.float64)
    out = leech.eval()(z)
    torch.testing.assert_close((z * out.quantized).sum(1), largest_products(z), atol=1e-6, rtol=0)
    assert torch.equal(leech.decode(out.indices, z.dtype), out.quantized)


def test_it_has_no_loss_and_the_gradient_is_that_of_the_direction(leech):
    torch.manual_seed(0)
    z, g = (torch.randn(10, 24, dtype=torch.float64) for _ in range(2))
    z.requires_grad_()
    out = leech.train()(z)
    (out.loss + (out.quantized * g).sum()).backward()
    assert out.loss == 0
    unit = z.detach() / z.detach().norm(dim=1, keepdim=True)
    expected = (g - (g * unit).sum(1, keepdim=True) * unit) / z.detach().norm(dim=1, keepdim=True)
    torch.testing.assert_close(z.grad, expected)


def test_codes_are_lattice_vectors_with_integer_coordinates(leech):
    indices = torch.arange(0, 196_560, 997)
    coordinates = leech.decode(indices) * 32**0.5
    assert torch.allclose(coordinates, coordinates.round(), atol=1e-5)
    assert (coordinates.round().abs().sum(1).unique() == torch.tensor([8, 16, 26])).all()


def test_another_size_is_refused():
    with pytest.raises(
        ValueError, match=r"LatticeInit: expected the size and dim of a lattice .*, got 256 of length 8"
    ):
        FrozenCodebook(size=256, dim=8, init=LatticeInit())


def test_codes_can_be_built_on_the_meta_device():
    with torch.device("meta"):
        assert LatticeInit().draw(240, 8).is_meta
