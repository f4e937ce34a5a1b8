"""Layers against float64 NumPy written from their equations, and in channels_last memory."""

import numpy as np
import pytest
import torch

from vq.layers import Downsample, PlainResidualBlock, ResnetBlock, SpatialAttention, Upsample, group_norm


def features(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


class TestGroupNorm:
    @pytest.mark.parametrize(
        ("channels", "groups"),
        [(512, 32), (256, 32), (128, 32), (64, 16), (48, 12), (32, 8), (16, 4), (7, 1), (1, 1)],
    )
    def test_number_of_groups(self, channels, groups):
        layer = group_norm(channels)
        assert layer.num_groups == groups
        assert layer.eps == 1e-6

    def test_keeps_the_differences_of_channels_in_a_group(self):
        """With one channel per group, as in 32 groups of 32 channels, both would be removed."""
        x = torch.zeros(1, 32, 4, 4)
        x[:, ::4] = 1
        assert group_norm(32)(x)[0, 0].mean() - group_norm(32)(x)[0, 1].mean() > 1

    @pytest.mark.parametrize("arguments", [{"channels": 0}, {"channels": 4, "max_groups": 0}])
    def test_refuses_no_channels(self, arguments):
        with pytest.raises(ValueError, match="group_norm: expected channels and max_groups of at least 1"):
            group_norm(**arguments)


class TestResnetBlock:
    def test_starts_as_the_shortcut_where_the_second_convolution_is_zero(self):
        block = ResnetBlock(in_channels=8)
        torch.nn.init.zeros_(block.conv2.weight)
        torch.nn.init.zeros_(block.conv2.bias)
        x = features(2, 8, 5, 6)
        torch.testing.assert_close(block(x), x, rtol=0, atol=0)

    def test_changes_the_number_of_channels(self):
        block = ResnetBlock(in_channels=8, out_channels=12)
        assert block(features(2, 8, 5, 6)).shape == (2, 12, 5, 6)
        assert block.shortcut.weight.shape == (12, 8, 1, 1)


def test_plain_block_is_the_identity_where_its_second_convolution_is_zero():
    block = PlainResidualBlock(channels=8)
    torch.nn.init.zeros_(block.conv2.weight)
    torch.nn.init.zeros_(block.conv2.bias)
    x = features(2, 8, 4, 5)
    assert torch.equal(block(x), x)
    assert not torch.equal(PlainResidualBlock(channels=8)(x), x)


class TestSpatialAttention:
    def test_equals_the_equation(self):
        attention = SpatialAttention(channels=8).double()
        x = features(2, 8, 3, 4).double()

        def project(layer, y):
            return (
                np.einsum("oc,bcn->bon", layer.weight.detach().numpy()[:, :, 0, 0], y)
                + layer.bias.detach().numpy()[None, :, None]
            )

        flat = x.numpy().reshape(2, 8, 12)
        groups = flat.reshape(2, 2, -1)
        normed = (groups - groups.mean(-1, keepdims=True)) / np.sqrt(groups.var(-1, keepdims=True) + 1e-6)
        query, key, value = (
            project(layer, normed.reshape(flat.shape))
            for layer in (attention.query, attention.key, attention.value)
        )
        weights = np.exp(np.einsum("bcn,bcm->bnm", query, key) / np.sqrt(8))
        weights /= weights.sum(-1, keepdims=True)
        wanted = flat + project(attention.out, np.einsum("bnm,bcm->bcn", weights, value))
        np.testing.assert_allclose(attention(x).detach().numpy(), wanted.reshape(x.shape), atol=1e-12)


class TestResample:
    def test_downsample_pads_the_bottom_and_right_only(self):
        layer = Downsample(channels=1)
        with torch.no_grad():
            layer.conv.weight.fill_(1)
            layer.conv.bias.zero_()
        x = torch.arange(16.0).reshape(1, 1, 4, 4)
        wanted = [[x[0, 0, i : i + 3, j : j + 3].sum().item() for j in (0, 2)] for i in (0, 2)]
        assert layer(x)[0, 0].tolist() == wanted

    def test_upsample_repeats_each_position(self):
        layer = Upsample(channels=1)
        with torch.no_grad():
            layer.conv.weight.zero_()
            layer.conv.weight[..., 1, 1] = 1
            layer.conv.bias.zero_()
        assert layer(torch.tensor([[[[1.0, 2.0]]]]))[0, 0].tolist() == [[1, 1, 2, 2], [1, 1, 2, 2]]


@pytest.mark.skipif(
    torch.__version__ < "2.12",
    reason="torch 2.11's group norm crashes (SIGSEGV) in a channels_last backward on CPU",
)
@pytest.mark.parametrize(
    "layer",
    [
        ResnetBlock(in_channels=8, out_channels=16),
        PlainResidualBlock(channels=8),
        SpatialAttention(channels=8),
        Downsample(channels=8),
        Upsample(channels=8),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_channels_last_gives_the_same_values_and_gradients(layer):
    x = features(2, 8, 6, 4)
    results = []
    for memory_format in (torch.contiguous_format, torch.channels_last):
        layer = layer.to(memory_format=memory_format)
        layer.zero_grad()
        y = layer(x.contiguous(memory_format=memory_format))
        y.square().sum().backward()
        results.append([y.detach(), *(p.grad.clone() for p in layer.parameters())])
        assert y.is_contiguous(memory_format=memory_format)
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
