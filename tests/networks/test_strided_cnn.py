"""The strided CNN encoder and decoder: sizes, cost, errors, compilation and memory layout."""

import pytest
import torch

from vq.networks.convolutional.strided_cnn import StridedCNNDecoder, StridedCNNEncoder
from vq.registry import DECODERS, ENCODERS


@pytest.mark.parametrize(
    ("widths", "factor"), [((8,), 2), ((8, 12), 4), ((4, 8, 12), 8), ((4, 4, 8, 12), 16)]
)
def test_sizes(widths, factor):
    encoder, decoder = StridedCNNEncoder(widths=widths), StridedCNNDecoder(widths=widths)
    assert encoder.downsample_factor == decoder.downsample_factor == factor
    assert encoder.out_channels == decoder.in_channels == widths[-1]
    image = torch.rand(2, 3, factor, 3 * factor) * 2 - 1
    features = encoder(image)
    assert features.shape == (2, widths[-1], 1, 3)
    assert decoder(features).shape == image.shape


def test_shapes_of_the_default():
    found = {
        name: tuple(parameter.shape)
        for network in (StridedCNNEncoder(), StridedCNNDecoder())
        for name, parameter in network.named_parameters(prefix=type(network).__name__)
        if parameter.ndim == 4 and "blocks" not in name
    }
    assert found == {
        "StridedCNNEncoder.downsamples.0.weight": (32, 3, 4, 4),
        "StridedCNNEncoder.downsamples.1.weight": (64, 32, 4, 4),
        "StridedCNNEncoder.downsamples.2.weight": (128, 64, 4, 4),
        "StridedCNNDecoder.upsamples.0.weight": (128, 64, 4, 4),
        "StridedCNNDecoder.upsamples.1.weight": (64, 32, 4, 4),
        "StridedCNNDecoder.upsamples.2.weight": (32, 3, 4, 4),
    }


def test_every_parameter_learns():
    encoder, decoder = StridedCNNEncoder(widths=(8, 12)), StridedCNNDecoder(widths=(8, 12))
    decoder(encoder(torch.rand(2, 3, 8, 8))).square().mean().backward()
    for network in (encoder, decoder):
        assert {name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()} == set()


def test_a_pixel_reaches_its_own_place():
    """The grid is aligned: a change in one cell of the image moves that cell's features the most."""
    torch.manual_seed(0)
    encoder = StridedCNNEncoder(widths=(8, 8, 8), num_blocks=1)
    image = torch.zeros(1, 3, 64, 64)
    changed = image.clone()
    changed[:, :, 18:22, 42:46] = 1
    moved = (encoder(changed) - encoder(image)).abs().sum(dim=1)[0]
    assert divmod(int(moved.argmax()), 8) == (2, 5)


def test_last_layer_is_the_weight_that_paints_the_pixels():
    decoder = StridedCNNDecoder(widths=(8, 12))
    assert decoder.last_layer is decoder.upsamples[-1].weight
    assert decoder.last_layer.shape == (8, 3, 4, 4)


class TestErrors:
    @pytest.mark.parametrize("size", [(12, 16), (16, 20)])
    def test_size_that_is_no_multiple(self, size):
        message = rf"StridedCNNEncoder: expected a height and width that are multiples of 8, got {size[0]}x{size[1]}"
        with pytest.raises(ValueError, match=message):
            StridedCNNEncoder()(torch.zeros(1, 3, *size))

    @pytest.mark.parametrize("network", [StridedCNNEncoder, StridedCNNDecoder])
    @pytest.mark.parametrize(("argument", "value"), [("widths", ()), ("widths", (8, 0)), ("num_blocks", 0)])
    def test_counts(self, network, argument, value):
        with pytest.raises(ValueError, match=rf"{network.__name__}: expected {argument} to be "):
            network(**{argument: value})


@pytest.mark.parametrize("network", [StridedCNNEncoder, StridedCNNDecoder])
def test_channels_last_gives_the_same_values_and_gradients(network):
    torch.manual_seed(0)
    module = network(widths=(8, 16))
    x = torch.rand(2, 3, 16, 16) if network is StridedCNNEncoder else torch.rand(2, 16, 4, 4)
    results = []
    for memory_format in (torch.contiguous_format, torch.channels_last):
        module = module.to(memory_format=memory_format)
        module.zero_grad()
        y = module(x.contiguous(memory_format=memory_format))
        y.square().mean().backward()
        results.append([y.detach(), *(p.grad.clone() for p in module.parameters())])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


@pytest.mark.usefixtures("without_shape_checks")
def test_compiles_without_graph_breaks():
    encoder = torch.compile(StridedCNNEncoder(widths=(8, 12)), backend="eager", fullgraph=True)
    assert encoder(torch.zeros(1, 3, 16, 16)).shape == (1, 12, 4, 4)
    decoder = torch.compile(StridedCNNDecoder(widths=(8, 12)), backend="eager", fullgraph=True)
    assert decoder(torch.zeros(1, 12, 4, 4)).shape == (1, 3, 16, 16)


def test_registered():
    assert ENCODERS.get("StridedCNNEncoder") is StridedCNNEncoder
    assert DECODERS.get("StridedCNNDecoder") is StridedCNNDecoder
