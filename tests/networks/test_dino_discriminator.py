"""DINODiscriminator: its equations, which parameters are trained and saved, and its errors."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from vq.losses import R1Penalty
from vq.networks import DINODiscriminator
from vq.networks.discriminators.dino import _Block, _Head, _VirtualBatchNorm


class TwoMaps(nn.Module):
    channels = (4, 6)

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 4, 4), nn.Conv2d(4, 6, 2, 2)

    def pyramid(self, image: torch.Tensor) -> list[torch.Tensor]:
        shallow = self.first(image)
        return [shallow, self.second(shallow)]


def discriminator(**arguments) -> DINODiscriminator:
    return DINODiscriminator(network=TwoMaps(), width=8, **arguments)


def test_every_map_has_as_many_logits() -> None:
    network, image = discriminator().eval(), torch.randn(2, 3, 32, 32)
    logits = network(image)
    assert logits.shape == (2, 2 * 64)
    maps = network._network[0].pyramid(image)
    for head, features, found in zip(network.heads, maps, logits.split(64, dim=1), strict=True):
        own = head(features.flatten(2))
        assert torch.equal(found, own.repeat_interleave(64 // own.shape[1], dim=1))


def test_the_block_goes_around_the_ring() -> None:
    """The equation in NumPy: the weight over its largest singular value, a circular convolution, norm, slope."""
    block = _Block(in_channels=3, out_channels=5, kernel_size=3, norm="batch").eval()
    x = torch.randn(4, 3, 7)
    with torch.no_grad():
        for _ in range(50):  # power iterations
            block.train()(x)
        found = block.eval()(x).double().numpy()
    original = block.convolution.parametrizations.weight.original.detach().double().numpy()
    kernel = original / np.linalg.norm(original.reshape(5, -1), 2)
    wide = np.pad(x.double().numpy(), ((0, 0), (0, 0), (1, 1)), mode="wrap")
    y = sum(np.einsum("oc,bcl->bol", kernel[:, :, k], wide[:, :, k : k + 7]) for k in range(3))
    y = y + block.convolution.bias.detach().double().numpy()[:, None]
    y = (y - y.mean((0, 2), keepdims=True)) / np.sqrt(y.var((0, 2), keepdims=True) + 1e-5)
    assert np.allclose(found, np.where(y > 0, y, 0.2 * y), atol=1e-4)


@pytest.mark.parametrize(("batch", "size"), [(16, 8), (12, 6), (7, 7), (11, 1)])
def test_virtual_batches(batch: int, size: int) -> None:
    x = torch.randn(batch, 3, 5)
    found = _VirtualBatchNorm(3)(x)
    for group, normed in zip(x.split(size), found.split(size), strict=True):
        assert torch.allclose(F.batch_norm(group, None, None, training=True), normed, atol=1e-5)


def test_the_head_keeps_positions() -> None:
    head = _Head(in_channels=4, width=8, kernel_size=3, norm="group").eval()
    assert head(torch.randn(2, 4, 9)).shape == (2, 9)
    x = torch.randn(2, 4, 9)
    assert torch.allclose(head(x.roll(2, dims=2)), head(x).roll(2, dims=1), atol=1e-5)


def test_only_the_heads_are_trained_and_saved() -> None:
    network = discriminator().train()
    trunk = network._network[0]
    assert not trunk.training
    assert all(name.startswith("heads.") for name in network.state_dict())
    frozen = {id(p) for p in trunk.parameters()}
    assert not frozen & {id(p) for p in network.parameters()}
    image = torch.randn(2, 3, 32, 32, requires_grad=True)
    network(image).square().mean().backward()
    assert all(p.grad is None for p in trunk.parameters())
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
    assert image.grad.abs().sum() > 0


def test_moves_and_copies_take_the_frozen_network_along() -> None:
    network = discriminator().eval()
    image = torch.randn(2, 3, 32, 32)
    double = copy.deepcopy(network).double()
    assert network._network[0].first.weight.dtype == torch.float32
    assert torch.allclose(double(image.double()).float(), network(image), atol=1e-4)
    with torch.autocast("cpu", torch.bfloat16):
        assert network(image).dtype == torch.float32


@pytest.mark.parametrize("norm", ["batch", "group"])
def test_learns_what_differs(norm: str) -> None:
    """Distinguishes noise from rare spots of noise: the norms make mean and variance equal, but the tails differ."""
    network = discriminator(norm=norm)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    for _ in range(60):
        real, fake = (network(image) for image in noise_and_spots())
        loss = F.relu(1 - real).mean() + F.relu(1 + fake).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    real, fake = (network(image).mean().item() for image in noise_and_spots())
    assert real > fake + 0.4


def noise_and_spots() -> tuple[torch.Tensor, torch.Tensor]:
    rare = torch.rand(8, 1, 4, 4) < 0.15
    spots = rare.repeat_interleave(8, dim=2).repeat_interleave(8, dim=3)
    return torch.randn(8, 3, 32, 32), torch.randn(8, 3, 32, 32) * spots


def test_takes_a_gradient_penalty() -> None:
    network = discriminator()
    image = torch.randn(2, 3, 32, 32)
    real = network(image)
    penalty = R1Penalty()(judge=network, image=image, reconstruction=image, real=real, fake=real)
    penalty.backward()
    assert penalty > 0
    assert network.heads[0].entry.convolution.parametrizations.weight.original.grad.abs().sum() > 0


def test_group_norm_judges_each_image_by_itself() -> None:
    network = discriminator(norm="group").eval()
    images = torch.randn(3, 3, 32, 32)
    torch.testing.assert_close(network(images)[1:2], network(images[1:2]), atol=1e-5, rtol=1e-5)


def test_refusals() -> None:
    with pytest.raises(
        TypeError, match=r"DINODiscriminator: expected a network with pyramid\(image\).*got Conv2d"
    ):
        DINODiscriminator(network=nn.Conv2d(3, 3, 1))
    with pytest.raises(ValueError, match="expected an odd kernel_size, got 4; take 5"):
        discriminator(kernel_size=4)
    with pytest.raises(ValueError, match="expected norm to be 'batch' or 'group', got 'layer'"):
        discriminator(norm="layer")
    with pytest.raises(ValueError, match="expected width to be an integer of at least 1, got 0"):
        DINODiscriminator(network=TwoMaps(), width=0)
    with pytest.raises(
        ValueError, match="DINODiscriminator: expected maps of at least 4 positions, got one of 1"
    ):
        discriminator()(torch.randn(2, 3, 8, 8))
