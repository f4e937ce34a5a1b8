"""TiTok's networks: what they refuse, and what reaches a token or a pixel."""

import pytest
import torch

from vq.layers import PixelPatches, RotaryPositions, Transformer
from vq.networks import MaskGITDecoder, TiTokCodeDecoder, TiTokDecoder, TiTokEncoder


def transformer(**changes):
    return Transformer(**{"width": 16, "depth": 1, "num_heads": 2, "norm_eps": 1e-5} | changes)


def encoder(**changes):
    shared = {"patches": PixelPatches(size=4), "image_size": (8, 16), "num_latents": 6, "out_channels": 5}
    return TiTokEncoder(**{"transformer": transformer(), **shared} | changes)


def test_images_that_are_not_square():
    decoder = TiTokDecoder(
        patches=PixelPatches(size=4),
        transformer=transformer(),
        image_size=(8, 16),
        num_latents=6,
        in_channels=5,
    )
    image = decoder(encoder()(torch.zeros(2, 3, 8, 16)))
    assert image.shape == (2, 3, 8, 16)
    assert decoder.image_size == (8, 16)


def test_a_code_decoder_paints_means_of_the_codes():
    pixels = MaskGITDecoder(base_width=8, multipliers=(1, 2), num_blocks=1, in_channels=4)
    decoder = TiTokCodeDecoder(
        decoder=pixels, transformer=transformer(), image_size=8, num_codes=3, num_latents=6, in_channels=5
    )
    features = torch.randn(2, 5, 6)
    with torch.no_grad():
        decoder.head[-1].weight.zero_()
        decoder.head[-1].bias.copy_(torch.tensor([0.0, 100.0, 0.0]))  # the second code at every position
        wanted = pixels(decoder.codes[1].view(1, 4, 1, 1).expand(2, -1, 4, 4))
        torch.testing.assert_close(decoder(features), wanted)
    assert decoder.last_layer is pixels.head.weight


def test_features_are_transposed_or_reshaped():
    plain, reshaped = encoder(), encoder(reshaped=True)
    reshaped.load_state_dict(plain.state_dict())
    image = torch.randn(1, 3, 8, 16)
    seen = []
    plain.transformer.register_forward_hook(lambda _module, _inputs, output: seen.append(output[:, :6]))
    with torch.no_grad():
        plain.head.weight.copy_(torch.eye(5, 16))
        reshaped.head.weight.copy_(torch.eye(5, 16))
        features, mixed = plain(image), reshaped(image)
    torch.testing.assert_close(features, seen[0].transpose(1, 2)[:, :5])
    torch.testing.assert_close(mixed, seen[0].reshape(1, 16, 6)[:, :5])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"transformer": transformer(positions=RotaryPositions())}, "without positions, got RotaryPositions"),
        ({"image_size": 10}, "a multiple of the patch size 4, got 10x10"),
        ({"num_latents": 0}, "expected num_latents to be an integer of at least 1, got 0"),
    ],
)
def test_arguments_that_do_not_fit(changes, message):
    with pytest.raises(ValueError, match=message):
        encoder(**changes)


def test_inputs_that_do_not_fit():
    with pytest.raises(ValueError, match="TiTokEncoder: expected images of 8x16, got 16x16"):
        encoder()(torch.zeros(1, 3, 16, 16))
    decoder = TiTokDecoder(patches=PixelPatches(size=4), transformer=transformer(), image_size=8)
    with pytest.raises(ValueError, match="TiTokDecoder: expected 32 features per image, got 7"):
        decoder(torch.zeros(1, 12, 7))


def test_norms_need_a_positive_eps():
    with pytest.raises(ValueError, match="expected a positive norm_eps, got 0"):
        transformer(norm_eps=0.0)
