"""StyleGAN2Discriminator: its size, its layers compared with plain arithmetic, and its errors."""

import numpy as np
import pytest
import torch
from scipy.signal import convolve2d

from vq.layers.equalized import EqualizedConv2d, EqualizedLinear, blur
from vq.networks import StyleGAN2Discriminator
from vq.networks.discriminators.stylegan import _deviation


def test_published_size() -> None:
    with torch.device("meta"):
        network = StyleGAN2Discriminator(image_size=256)
        assert network(torch.empty(4, 3, 256, 256)).shape == (4, 1)
    assert sum(p.numel() for p in network.parameters()) == 28_864_129


def test_the_blur_is_the_binomial_kernel() -> None:
    x = torch.randn(2, 3, 5, 7, dtype=torch.float64)
    taps = np.array([1, 3, 3, 1]) / 8
    for padding in (1, 2):
        found = blur(x, padding=padding)
        for image, out in zip(x.flatten(0, 1), found.flatten(0, 1), strict=True):
            wanted = convolve2d(np.pad(image.numpy(), padding), np.outer(taps, taps), mode="valid")
            np.testing.assert_allclose(out.numpy(), wanted, atol=1e-12)


@pytest.mark.parametrize("kernel_size", [1, 3])
def test_a_stride_halves_and_a_constant_stays_constant(kernel_size: int) -> None:
    layer = EqualizedConv2d(in_channels=1, out_channels=1, kernel_size=kernel_size, stride=2)
    torch.nn.init.ones_(layer.weight)
    out = layer(torch.ones(1, 1, 16, 16))
    assert out.shape == (1, 1, 8, 8)
    assert out[0, 0, 3, 3].item() == pytest.approx(kernel_size)  # kernel^2 / sqrt(kernel^2)


def test_layers_keep_the_variance() -> None:
    torch.manual_seed(0)
    conv = EqualizedConv2d(in_channels=64, out_channels=64, kernel_size=3)
    assert conv(torch.randn(4, 64, 16, 16))[..., 1:-1, 1:-1].std().item() == pytest.approx(1, rel=0.05)
    assert EqualizedLinear(in_features=64, out_features=500)(
        torch.randn(64, 64)
    ).std().item() == pytest.approx(1, rel=0.05)


def test_deviation_of_groups() -> None:
    x = torch.randn(8, 3, 4, 4, dtype=torch.float64)
    found = _deviation(x)
    assert found.shape == (8, 1, 4, 4)
    for group in range(2):
        members = x.numpy()[group::2]  # of two groups, every second image
        wanted = np.sqrt(members.var(axis=0) + 1e-8).mean()
        np.testing.assert_allclose(found[group::2].numpy(), wanted, rtol=1e-9)
    assert _deviation(x[:1]).abs().max() < 1e-3  # alone, nothing differs
    assert _deviation(x[:6]).flatten(1)[:, 0].unique().numel() == 2  # six images are two groups of three


def test_gradients_reach_every_weight() -> None:
    network = StyleGAN2Discriminator(image_size=16, max_width=8)
    network(torch.randn(4, 3, 16, 16)).sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in network.parameters())


def test_other_sizes_are_refused() -> None:
    for size in (4, 24):
        with pytest.raises(ValueError, match="expected image_size to be a power of 2 of at least 8"):
            StyleGAN2Discriminator(image_size=size)
    with pytest.raises(ValueError, match="expected images of 16x16, got 32x16"):
        StyleGAN2Discriminator(image_size=16, max_width=4)(torch.zeros(1, 3, 32, 16))
