"""Tokenizers of sequences, of whole grids, and of two levels: encode, decode and forward agree."""

import copy

import pytest
import torch

from vq.layers import PixelPatches, RotaryPositions, Transformer
from vq.metrics import CodebookUsage, LevelUsage
from vq.networks import (
    LatentTokensDecoder,
    LatentTokensEncoder,
    StridedCNNDecoder,
    StridedCNNEncoder,
    VQVAEDecoder,
    VQVAEEncoder,
)
from vq.quantizers import (
    EMACodebook,
    EntropyRegulariser,
    FiniteScalarQuantizer,
    LearnedCodebook,
    MultiScaleResidualQuantizer,
    NormalInit,
    ResidualQuantizer,
    VectorQuantizer,
)
from vq.tokenizers import ImageTokenizer, TwoLevelTokenizer

IMAGE = torch.rand(2, 3, 16, 24, generator=torch.Generator().manual_seed(0)) * 2 - 1


def transformer() -> Transformer:
    return Transformer(width=16, depth=1, num_heads=2, positions=RotaryPositions())


def latent_tokenizer(quantizer=None) -> ImageTokenizer:
    settings = {"patches": PixelPatches(size=4), "num_latents": 5}
    return ImageTokenizer(
        encoder=LatentTokensEncoder(**settings, transformer=transformer()),
        quantizer=quantizer or FiniteScalarQuantizer(levels=[5, 5]),
        decoder=LatentTokensDecoder(**settings, transformer=transformer(), image_size=(16, 24)),
    )


def two_levels(**changes) -> TwoLevelTokenizer:
    settings = {"width": 8, "num_blocks": 1}
    parts = {
        "bottom_encoder": VQVAEEncoder(**settings, num_halvings=2),
        "top_encoder": VQVAEEncoder(**settings, num_halvings=1, in_channels=8),
        "top_quantizer": VectorQuantizer(codebook=LearnedCodebook(size=7, dim=4)),
        "bottom_quantizer": VectorQuantizer(codebook=EMACodebook(size=9, dim=6)),
        "top_decoder": VQVAEDecoder(**settings, num_halvings=1, out_channels=8),
        "decoder": VQVAEDecoder(**settings, num_halvings=2),
    }
    return TwoLevelTokenizer(**(parts | changes))


def grid_tokenizer(quantizer) -> ImageTokenizer:
    return ImageTokenizer(
        encoder=StridedCNNEncoder(widths=(8, 8)),
        quantizer=quantizer,
        decoder=StridedCNNDecoder(widths=(8, 8)),
    )


def multi_scale() -> MultiScaleResidualQuantizer:
    inner = VectorQuantizer(codebook=LearnedCodebook(size=8, dim=4))
    return MultiScaleResidualQuantizer(quantizer=inner, scales=[(1, 1), (2, 3), (4, 6)])


CASES = {
    "grid": (lambda: grid_tokenizer(FiniteScalarQuantizer(levels=[5, 5])), (4, 6)),
    "residual": (
        lambda: grid_tokenizer(
            ResidualQuantizer(
                quantizers=[VectorQuantizer(codebook=LearnedCodebook(size=8, dim=4)) for _ in range(3)]
            )
        ),
        (4, 6, 3),
    ),
    "multi-scale": (lambda: grid_tokenizer(multi_scale()), (1 + 6 + 24,)),
    "sequence": (latent_tokenizer, (5,)),
    "two levels": (two_levels, (2, 3, 5)),
}


@pytest.mark.parametrize(("make", "shape"), CASES.values(), ids=CASES)
class TestEveryKind:
    def test_encode_decode_and_forward_agree(self, make, shape):
        torch.manual_seed(0)
        tokenizer = make().eval()
        output = tokenizer(IMAGE)
        indices = tokenizer.encode(IMAGE)
        assert indices.shape == (2, *shape)
        assert tokenizer.indices_shape(16, 24) == shape
        assert torch.equal(indices, output.quantize.indices)
        assert 0 <= indices.min() <= indices.max() < tokenizer.codebook_size
        wanted = output.reconstruction.clamp(-1, 1)
        torch.testing.assert_close(tokenizer.decode(indices), wanted, atol=1e-6, rtol=1e-6)

    def test_everything_learns(self, make, shape):
        torch.manual_seed(0)
        tokenizer = make().train()
        output = tokenizer(IMAGE)
        (output.reconstruction.square().mean() + output.quantize.loss).backward()
        still = {n for n, p in tokenizer.named_parameters() if p.grad is None or not p.grad.any()}
        # A lattice may give 0 for every vector of a new network, and then its 1x1 convolution stays.
        assert not {name for name in still if "quant" not in name}

    def test_encode_changes_no_state(self, make, shape):
        tokenizer = make().train()
        tokenizer(IMAGE)
        before = copy.deepcopy(tokenizer.state_dict())
        tokenizer.decode(tokenizer.encode(IMAGE))
        for name, value in tokenizer.state_dict().items():
            assert torch.equal(value, before[name]), name

    def test_bypass_is_the_networks_alone(self, make, shape):
        tokenizer = make().eval()
        assert tokenizer.bypass(IMAGE).shape == IMAGE.shape
        with torch.device("meta"):
            assert make().bypass(torch.empty(2, 3, 16, 24)).shape == IMAGE.shape


class TestSequence:
    def test_refuses_images_of_another_size(self):
        with pytest.raises(
            ValueError, match="expected images of 16x24, the size that its decoder is built for, got 16x16"
        ):
            latent_tokenizer()(torch.zeros(1, 3, 16, 16))

    def test_refuses_networks_of_different_kinds(self):
        with pytest.raises(
            ValueError, match="the encoder produces a grid, but the decoder takes a sequence of 5"
        ):
            ImageTokenizer(
                encoder=StridedCNNEncoder(widths=(8, 8)),
                quantizer=FiniteScalarQuantizer(levels=[5]),
                decoder=latent_tokenizer().decoder,
            )

    def test_refuses_a_quantizer_of_grids(self):
        with pytest.raises(ValueError, match="MultiScaleResidualQuantizer quantizes whole grids"):
            latent_tokenizer(multi_scale())


class TestTwoLevels:
    def test_the_bottom_knows_the_top(self):
        """Another top code moves the vectors of the bottom level, with the image the same."""
        torch.manual_seed(0)
        tokenizer = two_levels()
        features, top_z = tokenizer._top(IMAGE)
        assert not torch.allclose(tokenizer._bottom(features, top_z), tokenizer._bottom(features, top_z + 1))

    def test_both_levels_reach_the_image(self):
        torch.manual_seed(0)
        tokenizer = two_levels().eval()
        top, bottom = tokenizer.encode_levels(IMAGE)
        assert top.shape == (2, 2, 3)
        assert bottom.shape == (2, 4, 6)
        image = tokenizer.decode_levels(top, bottom)
        assert not torch.equal(tokenizer.decode_levels((top + 1) % 7, bottom), image)
        assert not torch.equal(tokenizer.decode_levels(top, (bottom + 1) % 9), image)

    def test_packing(self):
        tokenizer = two_levels()
        top, bottom = torch.randint(7, (2, 2, 3)), torch.randint(9, (2, 4, 6))
        packed = tokenizer.pack(top, bottom)
        assert packed[1, 1, 2].tolist() == [top[1, 1, 2], *(bottom[1, 2:4, 4:6].flatten() + 7).tolist()]
        assert all(torch.equal(a, b) for a, b in zip(tokenizer.unpack(packed), (top, bottom), strict=True))

    def test_usage_a_level(self):
        tokenizer = two_levels()
        top, bottom = torch.zeros(1, 2, 2, dtype=torch.int64), torch.arange(16).reshape(1, 4, 4) % 9
        metrics = [LevelUsage(codebook_sizes={"top": 7, "bottom": 9}), CodebookUsage(codebook_size=16)]
        scores = {}
        for metric in metrics:
            image = IMAGE[:1]
            metric.update(image=image, reconstruction=image, indices=tokenizer.pack(top, bottom))
            scores |= metric.compute()
        assert scores["codebook_usage[top]"] == pytest.approx(1 / 7)
        assert scores["codebook_usage[bottom]"] == 1
        assert scores["perplexity[top]"] == pytest.approx(1)
        assert scores["codebook_usage"] == pytest.approx(10 / 16)

    def test_errors(self):
        tokenizer = two_levels()
        with pytest.raises(ValueError, match="multiples of 8, got 16x20"):
            tokenizer(torch.zeros(1, 3, 16, 20))
        with pytest.raises(
            ValueError, match=r"a bottom map of shape \(1, 4, 4\) for a top map of shape \(1, 2, 2\)"
        ):
            tokenizer.decode_levels(torch.zeros(1, 2, 2).long(), torch.zeros(1, 2, 4).long())
        with pytest.raises(ValueError, match="indices whose last axis is 5 long"):
            tokenizer.decode(torch.zeros(1, 2, 2, 4).long())
        with pytest.raises(ValueError, match="expected a decoder with upsampling factor 4"):
            two_levels(decoder=VQVAEDecoder(width=8, num_halvings=1))
        with pytest.raises(
            ValueError, match="takes the 8 channels of the bottom_encoder, got one that takes 3"
        ):
            two_levels(top_encoder=VQVAEEncoder(width=8, num_halvings=1))
        with pytest.raises(ValueError, match="expected a bottom_quantizer with one index per vector"):
            two_levels(bottom_quantizer=CASES["residual"][0]().quantizer)


def test_level_usage_errors():
    with pytest.raises(ValueError, match="LevelUsage: expected codebook_sizes of at least 1"):
        LevelUsage(codebook_sizes={"top": 0})
    metric = LevelUsage(codebook_sizes={"top": 2})
    metric.update(image=IMAGE, reconstruction=IMAGE, indices=torch.full((2, 1), 2))
    with pytest.raises(ValueError, match=r"LevelUsage: expected indices in \[0, 2\), got 2 out of range"):
        metric.compute()


def test_a_codebook_of_both_levels_learns_once_a_step():
    torch.manual_seed(0)
    book = EMACodebook(size=9, dim=6, decay=0.5, init=NormalInit())
    levels = [VectorQuantizer(codebook=book, regularisers=[EntropyRegulariser()]) for _ in range(2)]
    tokenizer = two_levels(top_quantizer=levels[0], bottom_quantizer=levels[1])
    usage = book.usage.clone()
    output = tokenizer(IMAGE)
    counts = torch.bincount(tokenizer.unpack(output.quantize.indices)[0].flatten(), minlength=9)
    counts += torch.bincount(tokenizer.unpack(output.quantize.indices)[1].flatten(), minlength=9)
    torch.testing.assert_close(book.usage, 0.5 * usage + 0.5 * counts)
    (output.quantize.loss + output.reconstruction.sum()).backward()
