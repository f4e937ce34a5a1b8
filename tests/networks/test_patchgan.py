"""PatchDiscriminator: the published sizes, and its errors."""

import itertools

import pytest
import torch
import torch.nn.functional as F

from vq.layers.batch_norm import SyncedBatchNorm2d
from vq.layers.resample import BlurPool
from vq.networks import PatchDiscriminator


@pytest.mark.parametrize(("depth", "side", "count"), [(3, 30, 2_765_633), (2, 62, 663_361)])
def test_published_sizes(depth: int, side: int, count: int) -> None:
    with torch.device("meta"):
        network = PatchDiscriminator(depth=depth)
        logits = network(torch.empty(1, 3, 256, 256))
    assert logits.shape == (1, 1, side, side)
    assert sum(p.numel() for p in network.parameters()) == count


@pytest.mark.parametrize(("depth", "receptive"), [(3, 70), (2, 34)])
def test_a_logit_sees_its_patch_only(depth: int, receptive: int) -> None:
    network = PatchDiscriminator(base_width=4, depth=depth).eval()
    image = torch.randn(1, 3, 128, 128, requires_grad=True)
    logits = network(image)
    middle = logits.shape[-1] // 2
    logits[0, 0, middle, middle].backward()
    seen = image.grad[0].abs().sum(0).sum(0).nonzero()
    assert seen.max() - seen.min() + 1 == receptive


def plainly_blurred(x: torch.Tensor) -> torch.Tensor:
    """Zhang's section 3.2, position by position: the binomial filter at every second place, mirrored at the border."""
    taps = torch.tensor([1, 3, 3, 1], dtype=x.dtype) / 8
    kernel = torch.outer(taps, taps)
    height, width = x.shape[-2:]
    mirrored = lambda i, n: -i if i < 0 else (2 * (n - 1) - i if i >= n else i)  # noqa: E731
    out = x.new_zeros(*x.shape[:2], (height + 1) // 2, (width + 1) // 2)
    for row, column in itertools.product(range(out.shape[2]), range(out.shape[3])):
        for i, j in itertools.product(range(4), range(4)):
            y, z = mirrored(2 * row + i - 1, height), mirrored(2 * column + j - 1, width)
            out[:, :, row, column] += kernel[i, j] * x[:, :, y, z]
    return out


@pytest.mark.parametrize(("height", "width"), [(8, 8), (7, 5), (3, 4)])
def test_blur_pool_equals_the_formula(height: int, width: int) -> None:
    x = torch.randn(2, 3, height, width, dtype=torch.float64)
    torch.testing.assert_close(BlurPool()(x), plainly_blurred(x), atol=1e-14, rtol=0)


@pytest.mark.parametrize("size", [(24, 24), (25, 30)])
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_with_blur_weights_and_sizes_are_the_same(depth: int, size: tuple[int, int]) -> None:
    plain, blurred = (
        PatchDiscriminator(base_width=4, depth=depth, norm="group", downsampling=way).double()
        for way in ("stride", "blur")
    )
    blurred.load_state_dict(plain.state_dict())
    image = torch.randn(1, 3, *size, dtype=torch.float64)
    assert blurred(image).shape == plain(image).shape
    x = plainly_blurred(F.leaky_relu(F.conv2d(image, plain.stem.weight, plain.stem.bias, padding=1), 0.2))
    for level, (convolution, norm) in enumerate(zip(plain.convolutions, plain.norms, strict=True), start=1):
        x = F.leaky_relu(norm(F.conv2d(x, convolution.weight, convolution.bias, padding=1)), 0.2)
        x = plainly_blurred(x) if level < depth else x
    torch.testing.assert_close(blurred(image), plain.head(x), atol=1e-12, rtol=1e-12)


def test_with_blur_the_features_of_a_shifted_image_change_less() -> None:
    """A pattern that alternates from pixel to pixel is the same after two pixels; a shift by one is what aliases."""
    image = torch.randn(1, 3, 80, 80, generator=torch.Generator().manual_seed(0))
    changes = {}
    for way in ("stride", "blur"):
        torch.manual_seed(0)
        network = PatchDiscriminator(base_width=8, depth=3, norm="group", downsampling=way)
        with torch.no_grad():
            here, shifted = (network(image[..., i : i + 64, i : i + 64]) for i in (0, 1))
        changes[way] = ((here - shifted).std() / here.std()).item()
    assert changes["blur"] < 0.8 * changes["stride"]


def test_first_weights_are_small() -> None:
    torch.manual_seed(0)
    network = PatchDiscriminator(depth=2)
    assert network.convolutions[1].weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert network.norms[1].weight.mean().item() == pytest.approx(1, abs=0.01)
    assert network.norms[1].weight.std().item() == pytest.approx(0.02, rel=0.2)
    assert (network.stem.bias == 0).all()


def test_with_group_norm_an_image_is_judged_by_itself() -> None:
    network = PatchDiscriminator(base_width=8, depth=2, norm="group")
    images = torch.randn(3, 3, 32, 32)
    torch.testing.assert_close(network(images)[1:2], network(images[1:2]), atol=1e-6, rtol=1e-5)


def test_too_small_images_and_unknown_norms_are_refused() -> None:
    network = PatchDiscriminator(base_width=4, depth=3)
    assert network(torch.zeros(2, 3, 24, 24)).shape == (2, 1, 1, 1)
    with pytest.raises(ValueError, match="PatchDiscriminator: expected images of at least 24 px, got 23x40"):
        network(torch.zeros(2, 3, 23, 40))
    with pytest.raises(ValueError, match="expected norm to be 'batch' or 'group', got 'layer'"):
        PatchDiscriminator(norm="layer")
    with pytest.raises(ValueError, match="expected downsampling to be 'stride' or 'blur', got 'pool'"):
        PatchDiscriminator(downsampling="pool")


def test_alone_the_batch_norm_is_pytorch_s() -> None:
    ours, theirs = SyncedBatchNorm2d(channels=3), torch.nn.BatchNorm2d(3)
    x = torch.randn(4, 3, 5, 5)
    assert torch.equal(ours(x), theirs(x))
    assert ours.state_dict().keys() == theirs.state_dict().keys()
