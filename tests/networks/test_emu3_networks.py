"""Emu3's networks: their sizes, the norms that depend on the codes, and what they refuse."""

import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from vq.networks import CNNDecoder, Emu3Decoder, Emu3Encoder
from vq.networks.convolutional.emu3 import SpatialNorm

SMALL = {"base_width": 8, "multipliers": (1, 2), "num_blocks": 1}


@pytest.mark.parametrize(("network", "millions"), [(Emu3Encoder, 109.5), (Emu3Decoder, 161.1)])
def test_the_default_arguments_are_those_of_the_published_networks(network, millions):
    with torch.device("meta"):
        count = sum(parameter.numel() for parameter in network().parameters())
    assert round(count / 1e6, 1) == millions


def test_the_norm_equals_the_equation():
    norm = SpatialNorm(channels=8, code_channels=3).double()
    for parameter in norm.parameters():
        nn.init.normal_(parameter)
    x, codes = torch.randn(2, 8, 6, 4, dtype=torch.float64), torch.randn(2, 3, 3, 2, dtype=torch.float64)
    weights = {name: parameter.detach().numpy() for name, parameter in norm.named_parameters()}
    repeated = codes.numpy().repeat(2, axis=2).repeat(2, axis=3)
    scale, shift = (
        np.einsum("oi,bihw->bohw", weights[f"{name}.weight"][:, :, 0, 0], repeated)
        + weights[f"{name}.bias"][:, None, None]
        for name in ("scale", "shift")
    )
    groups = x.numpy().reshape(2, 2, -1)  # of 4 channels
    normed = (groups - groups.mean(-1, keepdims=True)) / np.sqrt(groups.var(-1, keepdims=True) + 1e-6)
    affine = (
        normed.reshape(x.shape) * weights["norm.weight"][:, None, None] + weights["norm.bias"][:, None, None]
    )
    np.testing.assert_allclose(norm(x, codes).detach().numpy(), affine * scale + shift, atol=1e-12)


@torch.no_grad()
def test_without_influence_of_the_codes_the_decoder_is_that_of_vqgan():
    ours, plain = Emu3Decoder(**SMALL, in_channels=5), CNNDecoder(**SMALL, in_channels=5)
    for norm in (module for module in ours.modules() if isinstance(module, SpatialNorm)):
        for layer, bias in ((norm.scale, 1.0), (norm.shift, 0.0)):
            nn.init.zeros_(layer.weight)
            nn.init.constant_(layer.bias, bias)
    renamed = {
        re.sub(r"(norm\d?)\.norm\.", r"\1.", name): tensor for name, tensor in ours.state_dict().items()
    }
    plain.load_state_dict({name: renamed[name] for name in plain.state_dict()})
    codes = torch.randn(2, 5, 4, 3)
    features = ours.blocks(ours.project(codes))
    for conv in ours.frame:
        features = F.silu(conv(features))
    torch.testing.assert_close(ours(codes), plain(features))


@torch.no_grad()
def test_each_norm_of_the_decoder_gets_the_codes():
    decoder = Emu3Decoder(**SMALL, in_channels=5)
    seen = []
    for norm in (module for module in decoder.modules() if isinstance(module, SpatialNorm)):
        norm.shift.register_forward_hook(lambda _module, inputs, _output: seen.append(inputs[0]))
    decoder(torch.randn(2, 5, 3, 4))
    assert len(seen) == 2 * (2 + 2 * 2) + 3 + 1  # blocks, attention, the last norm
    assert all(torch.equal(codes, seen[0]) for codes in seen)


def test_arguments_and_images_that_do_not_fit():
    for network in (Emu3Encoder, Emu3Decoder):
        with pytest.raises(ValueError, match=f"{network.__name__}: expected num_blocks to be an integer"):
            network(**SMALL | {"num_blocks": 0})
    with pytest.raises(ValueError, match=r"Emu3Encoder: .* 5x4"):
        Emu3Encoder(**SMALL)(torch.zeros(1, 3, 5, 4))


@pytest.mark.usefixtures("without_shape_checks")
@torch.no_grad()
@pytest.mark.slow
def test_compiles_without_graph_breaks():
    decoder, codes = Emu3Decoder(**SMALL, in_channels=5).eval(), torch.randn(1, 5, 4, 4)
    compiled = torch.compile(decoder, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(codes), decoder(codes))
