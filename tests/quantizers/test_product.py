"""Product quantization: each part is quantized by itself, and shared codes learn once."""

import pytest
import torch

from vq.quantizers import (
    EMACodebook,
    LearnedCodebook,
    LookupFreeQuantizer,
    NormalInit,
    ProductQuantizer,
    ResidualQuantizer,
    VectorQuantizer,
)


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
    codes, usage, sums = (
        t.clone() for t in (shared.codebook.vectors, shared.codebook.usage, shared.codebook.sums)
    )
    z = torch.randn(100, 6)
    out = ProductQuantizer(quantizers=[shared], groups=3).train()(z)
    parts, indices = z.reshape(300, 2), out.indices.flatten()
    assert torch.equal(indices, torch.cdist(parts, codes).argmin(1))
    counts = torch.bincount(indices, minlength=8)
    torch.testing.assert_close(shared.codebook.usage, 0.9 * usage + 0.1 * counts)
    totals = torch.zeros(8, 2).index_add_(0, indices, parts)
    torch.testing.assert_close(shared.codebook.sums, 0.9 * sums + 0.1 * totals, atol=1e-5, rtol=1e-5)


def test_a_shared_codebook_is_clustered_from_all_groups():
    # The second group is far from the first, so it has codes only if k-means has seen it.
    shared = VectorQuantizer(codebook=EMACodebook(size=8, dim=2))
    z = torch.cat([torch.randn(100, 2), torch.randn(100, 2) + 50], dim=1)
    out = ProductQuantizer(quantizers=[shared], groups=2).train()(z)
    assert (out.quantized - z).square().mean() < 1


@pytest.mark.parametrize("is_shared", [True, False])
def test_parts_may_have_stages(is_shared):
    def staged():
        return ResidualQuantizer(quantizers=[learned(dim=2), learned(dim=2)])

    quantizer = (
        ProductQuantizer(quantizers=[staged()], groups=3)
        if is_shared
        else ProductQuantizer(quantizers=[staged() for _ in range(3)])
    ).eval()
    z = torch.randn(5, 4, 6)
    out = quantizer(z)
    assert quantizer.index_shape == (3, 2)
    assert out.indices.shape == (5, 4, 3, 2)
    assert torch.equal(quantizer.decode(quantizer.encode(z)), out.quantized)
    third = quantizer.parts[0 if is_shared else 2](z[..., 4:])
    assert torch.equal(out.indices[..., 2, :], third.indices)


class TestPacked:
    """Tests of hierarchical VQ (HVQ): parts of different sizes with one index."""

    def quantizer(self):
        return ProductQuantizer(
            quantizers=[learned(3, 2), learned(5, 2), learned(2, 2)], is_packed=True
        ).eval()

    def test_every_index_has_its_own_digits(self):
        quantizer = self.quantizer()
        assert (quantizer.codebook_size, quantizer.index_shape) == (30, ())
        indices = torch.arange(30)
        codes = quantizer.decode(indices)
        assert torch.equal(quantizer.encode(codes), indices)
        first, second, third = quantizer.parts
        expected = torch.cat(
            [first.decode(indices % 3), second.decode(indices // 3 % 5), third.decode(indices // 15)], dim=1
        )
        assert torch.equal(codes, expected)

    def test_one_part_is_the_quantizer_itself(self):
        part, z = learned(), torch.randn(9, 4)
        packed, plain = ProductQuantizer(quantizers=[part], is_packed=True).eval()(z), part.eval()(z)
        assert torch.equal(packed.indices, plain.indices)
        assert torch.equal(packed.quantized, plain.quantized)
        torch.testing.assert_close(packed.loss, plain.loss)

    def test_too_many_codes_are_refused(self):
        with pytest.raises(ValueError, match=r"expected fewer than 2\^63 packed codes"):
            ProductQuantizer(quantizers=[learned(2**8, 1)], groups=8, is_packed=True)


class TestPadding:
    def test_zeros_fill_the_last_part_and_are_cut_off_again(self):
        quantizer = ProductQuantizer(quantizers=[learned(dim=4)], groups=3, dim=10).eval()
        whole = ProductQuantizer(quantizers=list(quantizer.parts), groups=3).eval()
        z = torch.randn(20, 10)
        out, padded = quantizer(z), whole(torch.cat([z, torch.zeros(20, 2)], dim=1))
        assert quantizer.codebook_dim == 10
        assert torch.equal(out.indices, padded.indices)
        assert torch.equal(out.quantized, padded.quantized[:, :10])
        torch.testing.assert_close(out.loss, padded.loss)
        assert torch.equal(quantizer.decode(quantizer.encode(z)), out.quantized)

    @pytest.mark.parametrize("dim", [8, 13])
    def test_a_part_of_nothing_but_zeros_is_refused(self, dim):
        with pytest.raises(ValueError, match="expected a dim above 8 and up to 12"):
            ProductQuantizer(quantizers=[learned(dim=4)], groups=3, dim=dim)


def test_invalid_arguments_raise():
    with pytest.raises(ValueError, match="expected one quantizer shared by groups"):
        ProductQuantizer(quantizers=[learned(), learned()], groups=3)
    with pytest.raises(ValueError, match="expected one quantizer shared by groups"):
        ProductQuantizer(quantizers=[])
    with pytest.raises(ValueError, match="expected quantizers of one codebook_size, got"):
        ProductQuantizer(quantizers=[learned(16), learned(8)])
    with pytest.raises(ValueError, match="expected quantizers of one index_shape"):
        ProductQuantizer(quantizers=[ProductQuantizer.example(), learned()])
    with pytest.raises(ValueError, match=r"which must be \(\) to pack indices"):
        ProductQuantizer(quantizers=[ProductQuantizer.example()], groups=2, is_packed=True)
    part = learned()
    with pytest.raises(ValueError, match="expected a different quantizer for each part"):
        ProductQuantizer(quantizers=[part, part])


def test_packed_indices_have_at_most_63_bits():
    def packed(*bits):
        return ProductQuantizer(
            quantizers=[LookupFreeQuantizer(bits=n) for n in bits], dim=sum(bits), is_packed=True
        )

    z = torch.ones(1, 62)
    assert packed(31, 31).encode(z).item() == 2**62 - 1
    with pytest.raises(ValueError, match=r"expected fewer than 2\^63 packed codes"):
        packed(31, 32)
