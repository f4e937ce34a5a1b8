"""The patch discriminator of pix2pix and VQGAN (PatchGAN)."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from vq.layers.batch_norm import SyncedBatchNorm2d, init_like_dcgan
from vq.layers.norm import group_norm
from vq.layers.resample import BlurPool
from vq.networks.sizes import check_counts
from vq.registry import DISCRIMINATORS

KERNEL = 4
MAX_MULTIPLIER = 8
SLOPE = 0.2


@DISCRIMINATORS.register_module()
class PatchDiscriminator(nn.Module):
    """Computes a real-or-fake logit for each patch of an image (PatchGAN).

    The layers are 4x4 convolutions: `depth` of stride 2, one of stride 1, and one to a single channel. With the
    default arguments there are 2.77 M parameters, and an image of 256 px gives 30 x 30 logits with a receptive field
    of 70 px; with a depth of 2 there are 0.66 M parameters and 62 x 62 logits with a receptive field of 34 px.
    Positive logits mean real.

    Source: Isola et al. 2017, https://arxiv.org/abs/1611.07004, section 3.2.2 and appendix 6.1.2; `blur`: Zhang 2019,
        https://arxiv.org/abs/1904.11486, section 3.2, which MaskBit (https://arxiv.org/abs/2409.16211) uses.
    Differs from the source: batch statistics are computed over all ranks.

    Args:
        base_width: The number of channels after the first convolution. It doubles with each further convolution, up
            to 8 * base_width.
        depth: The number of convolutions of stride 2.
        norm: `batch`, as published, or `group`, whose statistics are those of each image alone, so that
            micro-batches give exactly the result of one large batch.
        image_channels: The number of channels of the images.
        downsampling: `stride`, as published: the convolutions have the stride 2; or `blur`: they have the stride 1, and
            after the activation follows `BlurPool`. Weights and sizes are the same. It takes about four times as long.

    Raises:
        ValueError: If a number is below 1, or the norm or the downsampling is unknown.

    Example:
        >>> import torch
        >>> PatchDiscriminator(base_width=8, depth=2)(torch.zeros(2, 3, 64, 64)).shape
        torch.Size([2, 1, 14, 14])
    """

    def __init__(
        self,
        *,
        base_width: int = 64,
        depth: int = 3,
        norm: str = "batch",
        image_channels: int = 3,
        downsampling: str = "stride",
    ) -> None:
        super().__init__()
        check_counts("PatchDiscriminator", base_width=base_width, depth=depth, image_channels=image_channels)
        if norm not in ("batch", "group"):
            raise ValueError(
                f"PatchDiscriminator: expected norm to be 'batch' or 'group', got {norm!r}; choose one of them"
            )
        if downsampling not in ("stride", "blur"):
            raise ValueError(
                f"PatchDiscriminator: expected downsampling to be 'stride' or 'blur', got {downsampling!r}; choose one "
                f"of them"
            )
        self.pool = BlurPool() if downsampling == "blur" else nn.Identity()
        halving = 1 if downsampling == "blur" else 2
        self.depth = depth
        widths = [base_width * min(2**level, MAX_MULTIPLIER) for level in range(depth + 1)]
        self.min_size, self.image_channels = _smallest_image(depth), image_channels
        self.stem = nn.Conv2d(image_channels, widths[0], KERNEL, stride=halving, padding=1)
        self.convolutions, self.norms = nn.ModuleList(), nn.ModuleList()
        for level in range(1, depth + 1):
            stride = halving if level < depth else 1
            # Batch normalization subtracts the mean, so a bias would have no effect.
            self.convolutions.append(
                nn.Conv2d(widths[level - 1], widths[level], KERNEL, stride, padding=1, bias=norm == "group")
            )
            width = widths[level]
            self.norms.append(SyncedBatchNorm2d(channels=width) if norm == "batch" else group_norm(width))
        self.head = nn.Conv2d(widths[-1], 1, KERNEL, padding=1)
        init_like_dcgan(self)

    def forward(self, image: Float[Tensor, "b channels h w"]) -> Float[Tensor, "b 1 lh lw"]:
        """Computes one logit per patch of images in [-1, 1].

        Raises:
            ValueError: If the images are too small for a single logit.
        """
        if min(image.shape[-2:]) < self.min_size:
            raise ValueError(
                f"PatchDiscriminator: expected images of at least {self.min_size} px, got "
                f"{image.shape[-2]}x{image.shape[-1]}; lower its depth or use larger images"
            )
        x = self.pool(F.leaky_relu(self.stem(image), SLOPE))
        for level, (convolution, norm) in enumerate(zip(self.convolutions, self.norms, strict=True), start=1):
            x = F.leaky_relu(norm(convolution(x)), SLOPE)
            x = self.pool(x) if level < self.depth else x
        return self.head(x)


def _smallest_image(depth: int) -> int:
    # The two convolutions of stride 1 remove one pixel each, and one must remain.
    size: int = 3 * 2**depth
    return size
