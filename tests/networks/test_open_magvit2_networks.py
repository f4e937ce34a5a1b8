"""Open-MAGVIT2's networks: their sizes, the norms that depend on the codes, and what they refuse."""

import numpy as np
import pytest
import torch

from vq.networks import OpenMAGVIT2Decoder, OpenMAGVIT2Encoder
from vq.networks.convolutional.open_magvit2 import StatisticsNorm

SMALL = {"base_width": 8, "multipliers": (1, 2), "num_blocks": 1}


@pytest.mark.parametrize(("network", "millions"), [(OpenMAGVIT2Encoder, 49.8), (OpenMAGVIT2Decoder, 65.4)])
def test_the_default_arguments_are_those_of_the_published_networks(network, millions):
    with torch.device("meta"):
        count = sum(parameter.numel() for parameter in network().parameters())
    assert round(count / 1e6, 1) == millions


def test_the_norm_equals_the_equation():
    norm = StatisticsNorm(channels=8, code_channels=3).double()
    x, codes = torch.randn(2, 8, 6, 4, dtype=torch.float64), torch.randn(2, 3, 3, 2, dtype=torch.float64)
    flat = codes.flatten(2).numpy()
    deviation = np.sqrt(((flat - flat.mean(-1, keepdims=True)) ** 2).sum(-1) / 5 + 1e-6)
    scale = deviation @ norm.scale.weight.detach().numpy().T + norm.scale.bias.detach().numpy()
    shift = flat.mean(-1) @ norm.shift.weight.detach().numpy().T + norm.shift.bias.detach().numpy()
    groups = x.numpy().reshape(2, 2, -1)  # of 4 channels
    normed = (groups - groups.mean(-1, keepdims=True)) / np.sqrt(groups.var(-1, keepdims=True) + 1e-6)
    wanted = scale[..., None, None] * normed.reshape(x.shape) + shift[..., None, None]
    np.testing.assert_allclose(norm(x, codes).detach().numpy(), wanted, atol=1e-12)


def test_the_codes_reach_every_norm():
    decoder = OpenMAGVIT2Decoder(**SMALL, in_channels=5)
    seen = []
    for norm in decoder.adaptive:
        norm.shift.register_forward_hook(lambda _module, inputs, _output: seen.append(inputs[0]))
    codes = torch.randn(2, 5, 3, 4)
    decoder(codes)
    assert len(seen) == 2
    for mean in seen:
        torch.testing.assert_close(mean, codes.mean(dim=(2, 3)))


def test_a_single_position_is_refused():
    decoder = OpenMAGVIT2Decoder(**SMALL, in_channels=5)
    assert decoder(torch.randn(1, 5, 1, 2)).shape == (1, 3, 2, 4)
    with pytest.raises(ValueError, match=r"expected codes at two or more positions, .* got one; use larger"):
        decoder(torch.randn(2, 5, 1, 1))


def test_arguments_and_images_that_do_not_fit():
    for network in (OpenMAGVIT2Encoder, OpenMAGVIT2Decoder):
        with pytest.raises(ValueError, match=f"{network.__name__}: expected num_blocks to be an integer"):
            network(**SMALL | {"num_blocks": 0})
    with pytest.raises(ValueError, match=r"OpenMAGVIT2Encoder: .* 5x4"):
        OpenMAGVIT2Encoder(**SMALL)(torch.zeros(1, 3, 5, 4))


@pytest.mark.usefixtures("without_shape_checks")
def test_compiles_without_graph_breaks():
    decoder = OpenMAGVIT2Decoder(**SMALL, in_channels=5).eval()
    codes = torch.randn(1, 5, 4, 4)
    with torch.no_grad():
        compiled = torch.compile(decoder, backend="eager", fullgraph=True)
        torch.testing.assert_close(compiled(codes), decoder(codes))
