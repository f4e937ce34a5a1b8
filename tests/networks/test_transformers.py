"""The transformer encoders and decoders: sizes, parameters, and which inputs affect which outputs."""

import pytest
import torch

from vq.layers import (
    FrequencyBandPatches,
    FrequencyBlockPatches,
    FrequencyPatches,
    LearnedPositions,
    LinearAttention,
    PixelPatches,
    RotaryPositions,
    SineCosinePositions,
    SpectrumPatches,
    Transformer,
)
from vq.networks import (
    FrequencyDecoder,
    FrequencyEncoder,
    LatentTokensDecoder,
    LatentTokensEncoder,
    StridedCNNDecoder,
    StridedCNNEncoder,
    ViTDecoder,
    ViTEncoder,
)
from vq.ops.dct import dct2


def transformer(**changes: object) -> Transformer:
    return Transformer(**{"width": 16, "depth": 1, "num_heads": 2, "positions": RotaryPositions(), **changes})


def vit(patches, in_channels: int = 4, **changes: object) -> tuple[ViTEncoder, ViTDecoder]:
    return (
        ViTEncoder(patches=patches, transformer=transformer(**changes), out_channels=in_channels),
        ViTDecoder(patches=patches, transformer=transformer(**changes), in_channels=in_channels),
    )


def latent_tokens(**changes: object) -> tuple[LatentTokensEncoder, LatentTokensDecoder]:
    patches = PixelPatches(size=8)
    encoder = LatentTokensEncoder(
        patches=patches, transformer=transformer(**changes), num_latents=5, out_channels=4
    )
    decoder = LatentTokensDecoder(
        patches=patches,
        transformer=transformer(**changes),
        num_latents=5,
        in_channels=4,
        image_size=(32, 48),
    )
    return encoder, decoder


def unmoved(network: torch.nn.Module) -> set[str]:
    return {name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()}


def awake(network: torch.nn.Module) -> None:
    """Sharpens the attention of a new network."""
    for name, parameter in network.named_parameters():
        if name.endswith(("query.weight", "key.weight", "value.weight", "out.weight")):
            parameter.data.mul_(3)


def count(network: torch.nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


class TestViT:
    @pytest.mark.parametrize("factor", [8, 16, 32])
    @pytest.mark.parametrize(
        "changes",
        [{}, {"positions": SineCosinePositions()}, {"positions": None}, {"attention": LinearAttention()}],
    )
    def test_sizes(self, factor, changes):
        encoder, decoder = vit(PixelPatches(size=factor), **changes)
        assert encoder.downsample_factor == decoder.downsample_factor == factor
        assert encoder.out_channels == decoder.in_channels == 4
        image = torch.rand(2, 3, 2 * factor, 3 * factor) * 2 - 1
        features = encoder(image)
        assert features.shape == (2, 4, 2, 3)
        reconstruction = decoder(features)
        assert reconstruction.shape == image.shape
        reconstruction.square().mean().backward()
        assert unmoved(encoder) == unmoved(decoder) == set()

    @pytest.mark.parametrize(
        "kind", [FrequencyPatches, FrequencyBandPatches, FrequencyBlockPatches, SpectrumPatches]
    )
    def test_patches_of_frequencies(self, kind):
        encoder, decoder = vit(kind(size=8))
        image = torch.rand(2, 3, 16, 24)
        features = encoder(image)
        assert features.shape == (2, 4, 2, 3)
        assert decoder(features).shape == image.shape

    def test_features_lie_where_their_patch_is(self):
        torch.manual_seed(0)
        encoder, _ = vit(PixelPatches(size=8))
        image = torch.rand(1, 3, 32, 48)
        changed = image.clone()
        changed[:, :, 8:16, 32:40] *= -1
        moved = (encoder(changed) - encoder(image)).abs().sum(dim=1)[0]
        assert divmod(int(moved.argmax()), 6) == (1, 4)

    def test_layers_of_any_width_pass_on_their_inputs_at_one_scale(self):
        """A layer of 768 inputs begins as in BEiT; one of 64 began with outputs too small to learn from."""
        for width in (64, 768):
            query = transformer(width=width).blocks[0].query
            sizes = query(torch.randn(512, width)).std().item()
            assert sizes == pytest.approx(0.02 * 768**0.5, rel=0.05)
            assert not query.bias.any()

    def test_shapes_of_vq_kd(self):
        """The published 86.4 M and 8.25 M parameters, except key biases and the position of the class token."""
        with torch.device("meta"):
            positions = [LearnedPositions(width=768, grid=(14, 14)) for _ in range(2)]
            encoder = ViTEncoder(
                patches=PixelPatches(size=16),
                transformer=Transformer(width=768, depth=12, num_heads=12, positions=positions[0]),
                out_channels=32,
                num_extra_tokens=1,
            )
            decoder = ViTDecoder(
                patches=PixelPatches(size=1, channels=512),
                transformer=Transformer(width=768, depth=1, num_heads=12, positions=positions[1]),
                in_channels=32,
                num_extra_tokens=1,
            )
            features = encoder(torch.empty(1, 3, 224, 224))
            assert features.shape == (1, 32, 14, 14)
            assert encoder(torch.empty(1, 3, 256, 256)).shape == (1, 32, 16, 16)
            assert decoder(features).shape == (1, 512, 14, 14)
        assert count(encoder) == 86_404_640 - 768
        assert count(decoder) == 8_250_368 - 768

    def test_last_layer_is_the_weight_that_paints_the_pixels(self):
        _, decoder = vit(PixelPatches(size=8))
        assert decoder.last_layer is decoder.head[-1].weight
        assert decoder.last_layer.shape == (192, 16)

    def test_errors(self):
        encoder, _ = vit(PixelPatches(size=8))
        with pytest.raises(ValueError, match="multiples of 8, got 3 and 12x16"):
            encoder(torch.zeros(1, 3, 12, 16))
        with pytest.raises(ValueError, match="ViTEncoder: expected out_channels to be an integer"):
            ViTEncoder(patches=PixelPatches(size=8), transformer=transformer(), out_channels=0)
        with pytest.raises(
            ValueError, match="ViTDecoder: expected a number of extra tokens of at least 0, got -1"
        ):
            ViTDecoder(patches=PixelPatches(size=8), transformer=transformer(), num_extra_tokens=-1)


class TestFrequency:
    def test_sizes(self):
        encoder = FrequencyEncoder(encoder=StridedCNNEncoder(widths=(8, 16)))
        decoder = FrequencyDecoder(decoder=StridedCNNDecoder(widths=(8, 16)))
        image = torch.rand(2, 3, 16, 24)
        features = encoder(image)
        assert features.shape == (2, 16, 4, 6)
        decoder(features).square().mean().backward()
        assert unmoved(encoder) == unmoved(decoder) == set()
        assert decoder.last_layer is decoder.decoder.last_layer

    def test_the_features_run_from_low_to_high_frequency(self):
        encoder = FrequencyEncoder(encoder=StridedCNNEncoder(widths=(8, 16)))
        encoder.norm = torch.nn.Identity()
        image = torch.rand(2, 3, 16, 24)
        spectrum = dct2(encoder.encoder(image))
        first = encoder(image).flatten(2)[:, :, :5]
        wanted = [spectrum[:, :, i, j] for i, j in ((0, 0), (0, 1), (1, 0), (2, 0), (1, 1))]
        torch.testing.assert_close(first, torch.stack(wanted, dim=2))

    def test_the_decoder_undoes_order_and_transform(self):
        encoder = FrequencyEncoder(encoder=StridedCNNEncoder(widths=(8, 16)))
        decoder = FrequencyDecoder(decoder=StridedCNNDecoder(widths=(8, 16)))
        encoder.norm = torch.nn.Identity()
        image = torch.rand(2, 3, 16, 24)
        torch.testing.assert_close(decoder(encoder(image)), decoder.decoder(encoder.encoder(image)))


def test_a_network_that_declares_no_size():
    with pytest.raises(TypeError, match=r"Linear: expected an integer attribute 'out_channels', .* got None"):
        FrequencyEncoder(encoder=torch.nn.Linear(2, 2))


class TestLatentTokens:
    def test_sizes(self):
        encoder, decoder = latent_tokens()
        image = torch.rand(2, 3, 32, 48)
        features = encoder(image)
        assert features.shape == (2, 4, 5)
        assert encoder(torch.rand(1, 3, 16, 16)).shape == (1, 4, 5)
        reconstruction = decoder(features)
        assert reconstruction.shape == image.shape
        reconstruction.square().mean().backward()
        assert unmoved(encoder) == unmoved(decoder) == set()

    def test_patches_without_positions_are_a_set(self):
        encoder = LatentTokensEncoder(
            patches=PixelPatches(size=8), transformer=transformer(positions=None), num_latents=5
        )
        awake(encoder)
        image = torch.rand(1, 3, 32, 48)
        swapped = torch.cat([image[..., 24:], image[..., :24]], dim=-1)
        torch.testing.assert_close(encoder(swapped), encoder(image), atol=1e-5, rtol=1e-3)
        encoder.transformer.positions = SineCosinePositions()
        assert not torch.allclose(encoder(swapped), encoder(image), atol=1e-4, rtol=1e-2)

    def test_patches_depend_on_their_positions(self):
        _, decoder = latent_tokens()
        awake(decoder)
        image = decoder(torch.randn(1, 4, 5))
        assert not torch.allclose(image[..., :8, :8], image[..., 8:16, :8], atol=1e-6)

    def test_errors(self):
        with pytest.raises(ValueError, match="LatentTokensDecoder: expected a transformer with positions"):
            latent_tokens(positions=None)[1]
        encoder, decoder = latent_tokens()
        with pytest.raises(ValueError, match="expected 5 features per image, got 6"):
            decoder(torch.zeros(1, 4, 6))
        with pytest.raises(ValueError, match="multiples of 8"):
            encoder(torch.zeros(1, 3, 32, 44))
        with pytest.raises(ValueError, match="a multiple of the patch size 8, got 20x20"):
            LatentTokensDecoder(patches=PixelPatches(size=8), transformer=transformer(), image_size=20)


@pytest.mark.usefixtures("without_shape_checks")
@pytest.mark.parametrize("make", [lambda: vit(FrequencyPatches(size=8)), latent_tokens])
@pytest.mark.slow
def test_compiles_without_graph_breaks(make):
    encoder, decoder = make()
    image = torch.rand(1, 3, 32, 48)
    features = torch.compile(encoder, backend="eager", fullgraph=True)(image).detach()
    torch.testing.assert_close(features, encoder(image))
    assert torch.compile(decoder, backend="eager", fullgraph=True)(features).shape == image.shape
