"""The VQGAN encoder and decoder: the published shapes and values, sizes, errors, compile and layout."""

import json
import math
from pathlib import Path

import pytest
import torch
from torch import nn

from vq.layers.attention import SpatialAttention
from vq.networks.convolutional.cnn import CNNDecoder, CNNEncoder
from vq.registry import DECODERS, ENCODERS

SMALL = {"base_width": 16, "num_blocks": 1}


def shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(parameter.shape) for name, parameter in module.named_parameters()}


def numel(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.fixture(scope="module")
def pair():
    with torch.device("meta"):
        return CNNEncoder(), CNNDecoder()


class TestPublishedShapes:
    """VQGAN f16 (343 tensors, 72.14 M with its codebook and 1x1 convolutions), LlamaGen VQ-16 and VQ-8."""

    def test_counts(self, pair):
        encoder, decoder = pair
        assert (numel(encoder), numel(decoder)) == (29_298_176, 42_449_795)
        assert len(shapes(encoder)) + len(shapes(decoder)) == 343 - 5  # codebook, quant_conv, post_quant_conv
        codebook, convolutions = 1024 * 256, 2 * (256 * 256 + 256)
        assert round((numel(encoder) + numel(decoder) + codebook + convolutions) / 1e6, 2) == 72.14

    def test_count_of_llamagen_f8(self):
        with torch.device("meta"):
            encoder, decoder = CNNEncoder(multipliers=(1, 2, 2, 4)), CNNDecoder(multipliers=(1, 2, 2, 4))
        assert len(shapes(encoder)) + len(shapes(decoder)) == 300 - 6  # and the buffer codebook_used

    def test_encoder(self, pair):
        found = shapes(pair[0])
        assert found["stem.weight"] == (128, 3, 3, 3)
        for level, (width_in, width) in enumerate(
            [(128, 128), (128, 128), (128, 256), (256, 256), (256, 512)]
        ):
            attended = level == 4
            second = f"levels.{level}.{2 if attended else 1}"
            assert found[f"levels.{level}.0.norm1.weight"] == (width_in,)
            assert found[f"levels.{level}.0.conv1.weight"] == (width, width_in, 3, 3)
            assert found[f"levels.{level}.0.conv2.weight"] == (width, width, 3, 3)
            assert found[f"{second}.conv1.weight"] == (width, width, 3, 3)
            assert found.get(f"levels.{level}.0.shortcut.weight") == (
                (width, width_in, 1, 1) if width != width_in else None
            )
            assert found.get(f"levels.{level}.2.conv.weight") == (None if attended else (width, width, 3, 3))
        for name in ("levels.4.1", "levels.4.3", "middle.1"):
            assert {found[f"{name}.{part}.weight"] for part in ("query", "key", "value", "out")} == {
                (512, 512, 1, 1)
            }
        assert found["middle.0.conv1.weight"] == found["middle.2.conv2.weight"] == (512, 512, 3, 3)
        assert found["norm.weight"] == (512,)
        assert found["head.weight"] == (256, 512, 3, 3)

    def test_decoder(self, pair):
        found = shapes(pair[1])
        assert found["stem.weight"] == (512, 256, 3, 3)
        for level, (width_in, width) in enumerate(
            [(512, 512), (512, 256), (256, 256), (256, 128), (128, 128)]
        ):
            attended = level == 0
            assert found[f"levels.{level}.0.conv1.weight"] == (width, width_in, 3, 3)
            assert found.get(f"levels.{level}.0.shortcut.weight") == (
                (width, width_in, 1, 1) if width != width_in else None
            )
            for block in (2, 4) if attended else (1, 2):
                assert found[f"levels.{level}.{block}.conv1.weight"] == (width, width, 3, 3)
            upsample = f"levels.{level}.{6 if attended else 3}.conv.weight"
            assert found.get(upsample) == ((width, width, 3, 3) if level < 4 else None)
        for name in ("levels.0.1", "levels.0.3", "levels.0.5", "middle.1"):
            assert {found[f"{name}.{part}.weight"] for part in ("query", "key", "value", "out")} == {
                (512, 512, 1, 1)
            }
        assert found["norm.weight"] == (128,)
        assert found["head.weight"] == (3, 128, 3, 3)

    def test_norms_have_32_groups(self, pair):
        groups = {m.num_groups for network in pair for m in network.modules() if isinstance(m, nn.GroupNorm)}
        assert groups == {32}


def fill(module: nn.Module) -> None:
    """Sets weights by a formula, in the order in which the data pass through the layers."""
    with torch.no_grad():
        for number, (name, parameter) in enumerate(module.named_parameters()):
            x = torch.arange(parameter.numel(), dtype=torch.float64)
            wave = torch.sin(0.37 * x + 0.001 * x * x % 7 + number).reshape(parameter.shape)
            if parameter.ndim == 4:
                wave = wave * math.sqrt(2 / parameter[0].numel())
            elif "norm" in name and name.endswith("weight"):
                wave = 1 + 0.1 * wave
            else:
                wave = 0.1 * wave
            parameter.copy_(wave)


def test_values_equal_recorded_ones_of_the_original_code():
    golden = json.loads((Path(__file__).parent / "golden" / "taming_cnn.json").read_text())
    encoder = CNNEncoder(multipliers=(1, 2), num_blocks=1, out_channels=6).double()
    decoder = CNNDecoder(multipliers=(1, 2), num_blocks=1, in_channels=6).double()
    fill(encoder)
    fill(decoder)
    image = torch.sin(torch.arange(2 * 3 * 64, dtype=torch.float64) * 0.7).reshape(2, 3, 8, 8)
    features = torch.sin(torch.arange(2 * 6 * 16, dtype=torch.float64) * 0.3).reshape(2, 6, 4, 4)
    with torch.no_grad():
        found_features, found_image = encoder(image), decoder(features)
    for found, name in ((found_features, "features"), (found_image, "image")):
        wanted = torch.tensor(golden[name], dtype=torch.float64).reshape(golden[f"{name}_shape"])
        torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("factor", [1, 2, 4, 8, 16, 32])
@pytest.mark.parametrize("attention", [True, False])
def test_sizes(factor, attention):
    multipliers = (1, 1, 2, 2, 3, 3)[: int(math.log2(factor)) + 1]
    encoder = CNNEncoder(
        base_width=8, num_blocks=1, multipliers=multipliers, attention=attention, out_channels=5
    )
    decoder = CNNDecoder(
        base_width=8, num_blocks=1, multipliers=multipliers, attention=attention, in_channels=5
    )
    assert encoder.downsample_factor == decoder.downsample_factor == factor
    assert encoder.out_channels == decoder.in_channels == 5
    image = torch.rand(2, 3, factor, 2 * factor) * 2 - 1
    features = encoder(image)
    assert features.shape == (2, 5, 1, 2)
    assert decoder(features).shape == image.shape


def test_every_parameter_learns():
    encoder, decoder = CNNEncoder(multipliers=(1, 2), **SMALL), CNNDecoder(multipliers=(1, 2), **SMALL)
    decoder(encoder(torch.rand(2, 3, 8, 8))).square().mean().backward()
    for network in (encoder, decoder):
        for name, parameter in network.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
    # A bias of the keys moves all weights of a softmax alike: by the mathematics it has no gradient.
    silent = {n for m in (encoder, decoder) for n, p in m.named_parameters() if p.grad.abs().max() < 1e-9}
    assert all(name.endswith("key.bias") for name in silent)


def test_last_layer_is_the_weight_of_the_last_convolution():
    decoder = CNNDecoder(multipliers=(1, 2), **SMALL)
    assert decoder.last_layer is decoder.head.weight
    assert isinstance(decoder.last_layer, nn.Parameter)


class TestErrors:
    @pytest.mark.parametrize("size", [(12, 16), (16, 12), (0, 16), (4, 4)])
    def test_size_that_is_no_multiple(self, size):
        encoder = CNNEncoder(multipliers=(1, 1, 1, 1), **SMALL)
        message = (
            rf"CNNEncoder: expected a height and width that are multiples of 8, got {size[0]}x{size[1]}; crop"
        )
        with pytest.raises(ValueError, match=message):
            encoder(torch.zeros(1, 3, *size))

    @pytest.mark.parametrize("network", [CNNEncoder, CNNDecoder])
    @pytest.mark.parametrize(
        ("argument", "value"),
        [("base_width", 0), ("num_blocks", 0), ("multipliers", ()), ("multipliers", (1, 0))],
    )
    def test_counts(self, network, argument, value):
        with pytest.raises(ValueError, match=rf"{network.__name__}: expected {argument} to be "):
            network(**{argument: value})


@pytest.mark.parametrize("network", ["encoder", "decoder"])
def test_channels_last_gives_the_same_values_and_gradients(network):
    torch.manual_seed(0)
    if network == "encoder":
        module, x = CNNEncoder(multipliers=(1, 2), **SMALL), torch.rand(2, 3, 16, 16)
    else:
        module, x = CNNDecoder(multipliers=(1, 2), in_channels=4, **SMALL), torch.rand(2, 4, 8, 8)
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
@pytest.mark.slow
def test_compiles_without_graph_breaks():
    encoder = torch.compile(CNNEncoder(multipliers=(1, 2), **SMALL), backend="eager", fullgraph=True)
    assert encoder(torch.zeros(1, 3, 16, 16)).shape == (1, 256, 8, 8)
    decoder = torch.compile(CNNDecoder(multipliers=(1, 2), **SMALL), backend="eager", fullgraph=True)
    assert decoder(torch.zeros(1, 256, 8, 8)).shape == (1, 3, 16, 16)


def test_registered():
    assert ENCODERS.get("CNNEncoder") is CNNEncoder
    assert DECODERS.get("CNNDecoder") is CNNDecoder


@pytest.mark.parametrize(
    ("attention", "middle", "attended"),
    [
        (True, None, ["levels.2.1", "middle.1"]),
        (False, None, []),
        ((), True, ["middle.1"]),
        ((1, 2), False, ["levels.1.1", "levels.2.1"]),
        ((0,), None, ["levels.0.1", "middle.1"]),
    ],
)
def test_attention_is_where_it_is_asked_for(attention, middle, attended):
    sizes = {"base_width": 8, "multipliers": (1, 2, 3), "num_blocks": 1}
    encoder = CNNEncoder(attention=attention, middle_attention=middle, out_channels=4, **sizes)
    decoder = CNNDecoder(attention=attention, middle_attention=middle, in_channels=4, **sizes)
    found = [name for name, module in encoder.named_modules() if isinstance(module, SpatialAttention)]
    assert sorted(found) == attended
    # The decoder's levels begin with the lowest resolution, and each has two blocks.
    mirrored = [name for name, module in decoder.named_modules() if isinstance(module, SpatialAttention)]
    levels = sorted({2 - int(name.split(".")[1]) for name in mirrored if name.startswith("levels")})
    assert levels == [int(name.split(".")[1]) for name in attended if name.startswith("levels")]
    assert ("middle.1" in mirrored) == ("middle.1" in attended)
    assert decoder(encoder(torch.zeros(1, 3, 8, 12))).shape == (1, 3, 8, 12)


def test_attention_at_a_resolution_that_does_not_exist():
    with pytest.raises(
        ValueError, match=r"CNNEncoder: expected attention to be places in multipliers, from 0 to 1"
    ):
        CNNEncoder(base_width=8, multipliers=(1, 2), attention=(2,))
