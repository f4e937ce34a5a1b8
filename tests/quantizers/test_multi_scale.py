"""Multi-scale residual quantization: algorithms 1 and 2 by hand, partial decoding, one scale, learning."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from vq.engine.evaluation.pictures import index_picture
from vq.networks import StridedCNNDecoder, StridedCNNEncoder
from vq.quantizers import (
    EMACodebook,
    KMeansInit,
    LearnedCodebook,
    LookupFreeQuantizer,
    MultiScaleResidualQuantizer,
    NormalInit,
    ProductQuantizer,
    ReplaceDeadCodes,
    ResidualQuantizer,
    VectorQuantizer,
    accumulate,
)
from vq.tokenizers import ImageTokenizer

SCALES = [1, (2, 3), (4, 5)]


def learned(size=16, dim=4):
    return VectorQuantizer(codebook=LearnedCodebook(size=size, dim=dim, init=NormalInit()))


def made(**options):
    torch.manual_seed(0)
    return MultiScaleResidualQuantizer(**{"quantizer": learned(), "scales": SCALES, "num_convs": 2} | options)


def by_hand(quantizer, z):
    """Runs algorithm 1 of the paper with torch's interpolation in float64; returns indices and sums of each scale."""
    codes = quantizer.quantizer.codebook.vectors.detach().double()
    rest, total, indices, sums = z.double().movedim(-1, 1), 0, [], []
    for number, size in enumerate(quantizer.scales):
        small = F.interpolate(rest, size=size, mode="area").movedim(1, -1)
        found = torch.cdist(small.reshape(-1, codes.shape[1]), codes).argmin(1).view(small.shape[:-1])
        large = F.interpolate(codes[found].movedim(-1, 1), size=quantizer.grid, mode=quantizer.upsampling)
        if quantizer.mix:
            conv = quantizer.convs[quantizer.conv_of_scale[number]]
            smooth = F.conv2d(large, conv.weight.double(), conv.bias.double(), padding=1)
            large = (1 - quantizer.mix) * large + quantizer.mix * smooth
        rest, total = rest - large, total + large
        indices.append(found.flatten(1))
        sums.append(total.movedim(1, -1))
    return torch.cat(indices, 1), sums


@pytest.mark.parametrize("upsampling", ["bicubic", "bilinear"])
@pytest.mark.parametrize("mix", [0.0, 0.5])
def test_indices_and_partial_sums_are_those_of_the_algorithm(mix, upsampling):
    quantizer = made(mix=mix, upsampling=upsampling).eval()
    for parameter in quantizer.convs.parameters():
        nn.init.normal_(parameter, std=0.2)  # they are initialised as the identity
    z = torch.randn(6, 4, 5, 4)
    indices, sums = by_hand(quantizer, z)
    out = quantizer(z)
    assert torch.equal(out.indices, indices)
    torch.testing.assert_close(out.quantized, sums[-1].float(), atol=1e-5, rtol=1e-5)
    for depth in (1, 2, 3):
        partial = quantizer.decode_prefix(out.indices, depth)
        torch.testing.assert_close(partial, sums[depth - 1].float(), atol=1e-5, rtol=1e-5)
    assert torch.equal(quantizer.decode_prefix(out.indices, 3), out.quantized)
    assert torch.equal(
        quantizer.decode_prefix(out.indices[:, :7], 2), quantizer.decode_prefix(out.indices, 2)
    )


def test_the_loss_is_the_mean_of_the_scales_and_of_the_full_size_errors():
    quantizer = made()
    for parameter in quantizer.convs.parameters():
        nn.init.normal_(parameter, std=0.2)
    z = torch.randn(6, 4, 5, 4)
    out = quantizer(z)
    with torch.no_grad():
        _, sums = by_hand(quantizer, z)
    own = [value for name, value in out.metrics.items() if name.endswith("codebook_loss")]
    commitment = [value for name, value in out.metrics.items() if name.endswith("commitment_loss")]
    expected = np.mean(
        [
            float(a + 0.25 * b) + float((total - z).square().mean())
            for a, b, total in zip(own, commitment, sums, strict=True)
        ]
    )
    assert out.loss.item() == pytest.approx(expected, rel=1e-5)
    assert set(out.metrics) >= {"scale0/codebook_loss", "scale2/commitment_loss"}
    out.loss.backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in quantizer.parameters())


def test_one_scale_without_convolution_is_the_quantizer_itself():
    torch.manual_seed(0)
    inner = VectorQuantizer(codebook=EMACodebook(size=16, dim=4, init=NormalInit()))
    alone = VectorQuantizer(codebook=EMACodebook(size=16, dim=4, init=NormalInit()))
    alone.load_state_dict(inner.state_dict())
    quantizer = made(quantizer=inner, scales=[(4, 5)], mix=0.0)
    z = torch.randn(3, 4, 5, 4)
    ours, theirs = z.clone().requires_grad_(), z.clone().requires_grad_()
    for _ in range(2):
        out, expected = quantizer(ours), alone(theirs)
        assert torch.equal(out.quantized, expected.quantized)
        assert torch.equal(out.indices, expected.indices.flatten(1))
        torch.testing.assert_close(out.loss, expected.loss)
        (out.loss + out.quantized.sum()).backward()
        (expected.loss + expected.quantized.sum()).backward()
    torch.testing.assert_close(ours.grad, theirs.grad)
    for name, value in alone.state_dict().items():
        torch.testing.assert_close(inner.state_dict()[name], value)


def test_scales_share_convolutions_as_the_published_weights_do():
    quantizer = made(scales=[1, 2, 3, 4, 5, 6, 8, 10, 13, 16], num_convs=4)
    assert quantizer.conv_of_scale == [0, 0, 1, 1, 1, 2, 2, 3, 3, 3]
    assert quantizer.index_shape == (680,)
    assert len(made(num_convs=7).convs) == 3  # convolutions that no scale uses do not exist
    assert len(made(mix=0.0).convs) == 0


def test_phi_begins_as_the_identity():
    with_phi, without = made().eval(), made(mix=0.0).eval()
    z = torch.randn(6, 4, 5, 4)
    assert torch.equal(with_phi(z).indices, without(z).indices)
    torch.testing.assert_close(with_phi(z).quantized, without(z).quantized)


def test_scale_maps_cut_the_sequence():
    quantizer = made()
    maps = quantizer.scale_maps(torch.arange(27).expand(2, 27) % 16)
    assert [tuple(own.shape) for own in maps] == [(2, 1, 1), (2, 2, 3), (2, 4, 5)]
    assert maps[1][0].tolist() == [[1, 2, 3], [4, 5, 6]]


def test_the_shared_codebook_learns_once_from_all_scales():
    quantizer = made(
        quantizer=VectorQuantizer(codebook=EMACodebook(size=16, dim=4, decay=0.5, init=NormalInit()))
    )
    book = quantizer.quantizer.codebook
    quantizer(torch.randn(6, 4, 5, 4))
    # n = 0.5 * 1 + 0.5 * counts for each of 16 codes.
    assert book.usage.sum().item() == pytest.approx(0.5 * 16 + 0.5 * 6 * (1 + 6 + 20))
    before = book.vectors.clone()
    with accumulate(quantizer):
        quantizer(torch.randn(6, 4, 5, 4))
    assert torch.equal(book.vectors, before)


def test_k_means_begins_from_the_features_at_full_size():
    book = EMACodebook(size=64, dim=4, init=KMeansInit(), revival=ReplaceDeadCodes())
    quantizer = made(quantizer=VectorQuantizer(codebook=book))
    quantizer(torch.randn(6, 4, 5, 4))  # the coarsest scale has 6 vectors, the features 120
    assert len(book.vectors.unique(dim=0)) == 64


def test_more_scales_leave_a_smaller_error_after_training():
    torch.manual_seed(0)
    book = EMACodebook(size=32, dim=4, decay=0.9, revival=ReplaceDeadCodes())
    quantizer = made(quantizer=VectorQuantizer(codebook=book), scales=[1, 2, 4])
    optimizer = torch.optim.Adam(quantizer.parameters(), lr=3e-3)

    def batch():
        return F.interpolate(torch.randn(32, 4, 2, 2), size=(4, 4), mode="bicubic").movedim(1, -1)

    for _ in range(150):
        optimizer.zero_grad()
        quantizer(batch()).loss.backward()
        optimizer.step()
    quantizer.eval()
    z = batch()
    indices = quantizer.encode(z)
    errors = [(quantizer.decode_prefix(indices, k) - z).square().mean().item() for k in (1, 2, 3)]
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 0.5 * z.square().mean()


def test_any_quantizer_may_be_inside_and_images_may_be_masked():
    quantizer = made(quantizer=LookupFreeQuantizer(bits=4))
    z, mask = torch.randn(5, 4, 5, 4), torch.tensor([True, True, False, True, False])
    out, expected = quantizer(z, mask), quantizer(z[mask])
    torch.testing.assert_close(out.loss, expected.loss)
    assert torch.equal(out.indices[mask], expected.indices)


def test_a_broken_pixel_spoils_its_image_and_nothing_else():
    inner = VectorQuantizer(codebook=EMACodebook(size=16, dim=4, init=NormalInit()))
    quantizer = made(quantizer=inner)
    z = torch.randn(3, 4, 5, 4)
    broken = z.clone()
    broken[1, 2, 2, 0] = torch.nan
    out = quantizer(broken)
    assert out.quantized[1].isnan().all()
    assert out.quantized[[0, 2]].isfinite().all()
    assert inner.codebook.usage.sum().item() == pytest.approx(0.99 * 16 + 0.01 * 2 * 27)


def test_a_tokenizer_takes_it_and_its_indices_have_a_picture():
    quantizer = made(scales=[1, 2, 4])
    tokenizer = ImageTokenizer(
        encoder=StridedCNNEncoder(widths=(8, 8)),
        quantizer=quantizer,
        decoder=StridedCNNDecoder(widths=(8, 8)),
    ).eval()
    image = torch.rand(2, 3, 16, 16) * 2 - 1
    indices = tokenizer.encode(image)
    assert indices.shape == (2, 21)
    assert torch.equal(tokenizer.decode(indices), tokenizer(image).reconstruction.clamp(-1, 1))
    assert index_picture(indices[0], 16, height=8, width=42).shape == (3, 8, 42)
    with pytest.raises(ValueError, match=r"expected z with the axes \(4, 4\) \(grid\) before the code axis"):
        tokenizer.encode(torch.zeros(1, 3, 32, 32))


@pytest.mark.parametrize("scales", [[], [2, 1], [(2, 3), (3, 2)], [0, 1], [(1, 2, 3)]])
def test_scales_that_do_not_grow_are_refused(scales):
    with pytest.raises(
        ValueError, match=r"expected scales of positive \(height, width\) from coarse to fine"
    ):
        made(scales=scales)


def test_invalid_arguments_raise():
    with pytest.raises(ValueError, match="expected a quantizer with one index per vector"):
        made(quantizer=ResidualQuantizer(quantizers=[learned()], depth=2))
    with pytest.raises(ValueError, match="expected num_convs >= 1 and mix in"):
        made(mix=1.5)
    with pytest.raises(ValueError, match="expected num_convs >= 1 and mix in"):
        made(num_convs=0)
    with pytest.raises(ValueError, match="expected upsampling to be bicubic or bilinear, got 'nearest'"):
        made(upsampling="nearest")
    with pytest.raises(ValueError, match="expected quantizers of single vectors, got one of whole grids"):
        ProductQuantizer(quantizers=[made()], groups=2)
    quantizer = made()
    for depth in (0, 4):
        with pytest.raises(ValueError, match=r"expected a depth in \[1, 3\]"):
            quantizer.decode_prefix(torch.zeros(2, 27, dtype=torch.int64), depth)
    with pytest.raises(ValueError, match="expected the indices of 3 scales, got 2"):
        quantizer.decode_prefix(torch.zeros(2, 7, dtype=torch.int64), 3)
    with pytest.raises(ValueError, match="got 5 indices, which end inside the scale 2 x 3"):
        quantizer.scale_maps(torch.zeros(2, 5, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"expected z with the axes \(4, 5\) \(grid\)"):
        quantizer(torch.randn(2, 5, 4, 4))
    with pytest.raises(ValueError, match=r"expected z with the axes \(4, 5\) \(grid\)"):
        quantizer(torch.randn(4))


@pytest.mark.parametrize("scales", [[(2, 1), (1, 2)], [(1, 2), (2, 1)], [(3, 1), (2, 4)], [(0, 4)], [(4, 0)]])
def test_each_axis_of_the_scales_must_be_positive_and_grow(scales):
    with pytest.raises(ValueError, match="expected scales of positive"):
        made(scales=scales)


@pytest.mark.parametrize("scales", [[(1, 3), (2, 3)], [(3, 1), (3, 2)], [(1, 1), (1, 1)]])
def test_an_axis_of_the_scales_may_stay_as_it_is(scales):
    assert made(scales=scales).grid == scales[-1]


def test_three_convolutions_take_a_third_of_the_scales_each():
    """The positions k / 13 of 14 scales: 0 to 4 are below 1 / 3, 5 to 8 below 2 / 3."""
    quantizer = made(scales=list(range(1, 15)), num_convs=3)
    assert quantizer.conv_of_scale == [0] * 5 + [1] * 4 + [2] * 5
