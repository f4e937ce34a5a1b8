"""The networks of VQ-VAE: sizes, the published layers, errors."""

import pytest
import torch

from vq.networks import VQVAEDecoder, VQVAEEncoder


@pytest.mark.parametrize(("halvings", "factor"), [(1, 2), (2, 4), (3, 8), (4, 16), (5, 32)])
def test_sizes(halvings, factor):
    settings = {"width": 8, "num_halvings": halvings, "block_width": 4}
    encoder, decoder = VQVAEEncoder(**settings), VQVAEDecoder(**settings)
    assert encoder.downsample_factor == decoder.downsample_factor == factor
    image = torch.rand(2, 3, factor, 3 * factor)
    features = encoder(image)
    assert features.shape == (2, 8, 1, 3)
    assert decoder(features).shape == image.shape


def test_layers_of_the_paper():
    found = {
        name: tuple(p.shape) for name, p in VQVAEEncoder().named_parameters(prefix="encoder") if p.ndim == 4
    }
    block = {"conv1": (256, 256, 3, 3), "conv2": (256, 256, 1, 1)}
    assert found == {
        "encoder.halvings.0.weight": (256, 3, 4, 4),
        "encoder.halvings.1.weight": (256, 256, 4, 4),
        **{f"encoder.blocks.{i}.{name}.weight": shape for i in range(2) for name, shape in block.items()},
    }


def test_bare_strides_equal_their_equation():
    encoder = VQVAEEncoder(width=8, num_halvings=3, num_blocks=0)
    image = torch.rand(1, 3, 16, 16)
    x = image
    for layer in encoder.halvings:
        x = layer(x).clamp_min(0)
    torch.testing.assert_close(encoder(image), x)
    assert sum(p.numel() for p in encoder.parameters()) == 8 * (3 * 16 + 1) + 2 * 8 * (8 * 16 + 1)


def test_levels_take_features_and_give_them():
    top = VQVAEEncoder(width=8, num_halvings=1, in_channels=6)
    back = VQVAEDecoder(width=8, num_halvings=1, in_channels=4, out_channels=6)
    assert top(torch.zeros(1, 6, 8, 12)).shape == (1, 8, 4, 6)
    assert back(torch.zeros(1, 4, 4, 6)).shape == (1, 6, 8, 12)
    assert back.last_layer is back.doublings[-1].weight


def test_every_parameter_learns():
    encoder, decoder = VQVAEEncoder(width=8), VQVAEDecoder(width=8, in_channels=8)
    decoder(encoder(torch.rand(2, 3, 8, 8))).square().mean().backward()
    for network in (encoder, decoder):
        assert {name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()} == set()


@pytest.mark.parametrize("network", [VQVAEEncoder, VQVAEDecoder])
def test_errors(network):
    for argument in ("width", "num_halvings", "block_width", "in_channels"):
        with pytest.raises(ValueError, match=rf"{network.__name__}: expected {argument} to be an integer"):
            network(**{argument: 0})
    with pytest.raises(ValueError, match=rf"{network.__name__}: expected num_blocks of at least 0, got -1"):
        network(num_blocks=-1)
    with pytest.raises(ValueError, match="multiples of 4, got 6x8"):
        VQVAEEncoder(width=8)(torch.zeros(1, 3, 6, 8))
