"""The losses between features: their equations, where gradients go, what is saved."""

import numpy as np
import pytest
import torch
from torch import nn

from vq.losses.features import CosineFeatureLoss, FeatureLoss


class TwoDepths(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 3)
        self.calls = []

    def features(self, image: torch.Tensor) -> list[torch.Tensor]:
        self.calls.append(torch.is_grad_enabled())
        shallow = self.first(image)
        return [shallow, self.second(shallow.relu())]


def pair() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.rand(2, 3, 9, 8, generator=generator) * 2 - 1 for _ in range(2))


def test_pyramid_equals_the_equation():
    network, (a, b) = TwoDepths(), pair()
    distances = []
    for pair_of_maps in zip(network.features(a), network.features(b), strict=True):
        x, y = (
            t.detach().double().numpy() / np.linalg.norm(t.detach().double(), axis=1)[:, None]
            for t in pair_of_maps
        )
        distances.append(((x - y) ** 2).sum(1).mean())
    loss = FeatureLoss(network=network)
    assert loss(a, b).item() == pytest.approx(np.mean(distances), rel=1e-5)
    assert loss(a, a).item() == 0


def test_the_network_is_frozen_unsaved_and_sees_the_image_once():
    network, (a, b) = TwoDepths(), pair()
    loss = FeatureLoss(network=network)
    assert not loss.state_dict()
    assert not list(loss.parameters())
    a.requires_grad_()
    b.requires_grad_()
    loss(a, b).backward()
    assert a.grad.abs().sum() > 0
    assert b.grad is None
    assert network.first.weight.grad is None
    assert network.calls == [False, True]


def test_range():
    with pytest.raises(ValueError, match=r"FeatureLoss: expected images in \[-1, 1\], got values from"):
        FeatureLoss(network=TwoDepths())(pair()[0], torch.full((2, 3, 9, 8), 255.0))


def test_cosine():
    a, b = pair()
    x, y = a.double().numpy(), b.double().numpy()
    cosine = (x * y).sum(1) / np.linalg.norm(x, axis=1) / np.linalg.norm(y, axis=1)
    assert CosineFeatureLoss()(a, b).item() == pytest.approx(1 - cosine.mean(), rel=1e-5)
    assert CosineFeatureLoss()(a, 3 * a).item() == pytest.approx(0, abs=1e-6)
    b.requires_grad_()
    CosineFeatureLoss()(a.requires_grad_(), b).backward()
    assert b.grad is None
