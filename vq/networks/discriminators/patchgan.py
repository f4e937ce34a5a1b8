"""The discriminator that judges patches."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from vq.layers.batch_norm import SyncedBatchNorm2d, init_like_dcgan
from vq.layers.norm import group_norm
from vq.networks.sizes import check_counts
from vq.registry import DISCRIMINATORS

KERNEL = 4
MAX_MULTIPLIER = 8
SLOPE = 0.2


@DISCRIMINATORS.register_module()
class PatchDiscriminator(nn.Module):
    """Says of each patch of an image how real it looks (PatchGAN).

    4x4 convolutions: `depth` of stride 2, one of stride 1, and one to a single channel. At the defaults it
    has 2.77 M parameters and turns 256 px into 30 x 30 logits, each of which sees 70 px; with depth 2, 0.66 M
    and 62 x 62 logits, each of which sees 34 px. Positive means real.

    Source: Isola et al. 2017, https://arxiv.org/abs/1611.07004, section 3.2.2 and appendix 6.1.2.
    Differs from the source: batch statistics are those of all ranks together.

    Args:
        base_width: Channels after the first convolution; they double until eight times as many.
        depth: Convolutions of stride 2.
        norm: `batch` as published, or `group`, which judges every image by itself: micro-batches then equal
            one large batch exactly.

    Raises:
        ValueError: If a number is below 1, or there is no such norm.

    Example:
        >>> import torch
        >>> PatchDiscriminator(base_width=8, depth=2)(torch.zeros(2, 3, 64, 64)).shape
        torch.Size([2, 1, 14, 14])
    """

    def __init__(self, *, base_width: int = 64, depth: int = 3, norm: str = "batch") -> None:
        super().__init__()
        check_counts("PatchDiscriminator", base_width=base_width, depth=depth)
        if norm not in ("batch", "group"):
            raise ValueError(
                f"PatchDiscriminator: expected norm to be 'batch' or 'group', got {norm!r}; choose one of them"
            )
        widths = [base_width * min(2**level, MAX_MULTIPLIER) for level in range(depth + 1)]
        self.min_size = _smallest_image(depth)
        self.stem = nn.Conv2d(3, widths[0], KERNEL, stride=2, padding=1)
        self.convolutions, self.norms = nn.ModuleList(), nn.ModuleList()
        for level in range(1, depth + 1):
            stride = 2 if level < depth else 1
            # The norm takes the mean away, so a bias would do nothing.
            self.convolutions.append(
                nn.Conv2d(widths[level - 1], widths[level], KERNEL, stride, padding=1, bias=norm == "group")
            )
            width = widths[level]
            self.norms.append(SyncedBatchNorm2d(channels=width) if norm == "batch" else group_norm(width))
        self.head = nn.Conv2d(widths[-1], 1, KERNEL, padding=1)
        init_like_dcgan(self)

    def forward(self, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 1 lh lw"]:
        """Images in [-1, 1] to one logit a patch.

        Raises:
            ValueError: If the images are too small to leave a logit.
        """
        if min(image.shape[-2:]) < self.min_size:
            raise ValueError(
                f"PatchDiscriminator: expected images of at least {self.min_size} px, got "
                f"{image.shape[-2]}x{image.shape[-1]}; lower its depth or use larger images"
            )
        x = F.leaky_relu(self.stem(image), SLOPE)
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = F.leaky_relu(norm(convolution(x)), SLOPE)
        logits: Tensor = self.head(x)
        return logits


def _smallest_image(depth: int) -> int:
    # Two convolutions of stride 1 take a pixel each; what is left must be a pixel.
    size: int = 3 * 2**depth
    return size
