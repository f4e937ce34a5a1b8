"""PatchDiscriminator: the published sizes, and its errors."""

import pytest
import torch

from vq.layers.batch_norm import SyncedBatchNorm2d
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


def test_alone_the_batch_norm_is_pytorch_s() -> None:
    ours, theirs = SyncedBatchNorm2d(channels=3), torch.nn.BatchNorm2d(3)
    x = torch.randn(4, 3, 5, 5)
    assert torch.equal(ours(x), theirs(x))
    assert ours.state_dict().keys() == theirs.state_dict().keys()
