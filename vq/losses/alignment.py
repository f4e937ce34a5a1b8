"""The loss that brings features of a tokenizer close to those of a frozen teacher."""

from collections.abc import Sequence
from typing import ClassVar, Literal, get_args

import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from vq.losses.base import Loss
from vq.networks.sizes import check_counts
from vq.networks.teachers import Teacher
from vq.ops.directions import unit
from vq.ops.images import checked_rgb, rgb_view
from vq.ops.numerics.precision import at_least_float32, without_autocast
from vq.registry import LOSSES

Comparison = Literal["cosine", "mse"]


@LOSSES.register_module()
class FeatureAlignment(Loss):
    """Compares features of a tokenizer with those of a frozen teacher at the same places of the image.

    * `source="reconstruction"`, without a projection: VQ-KD. The decoder of a `FeatureTokenizer` predicts the
      teacher's features.
    * `source="latent"`, `"quantized"` or the name of a part of the decoder, with a projection: feature alignment of an
      ordinary tokenizer, which makes its codes say more about the content of the image.

    If the grids differ, the teacher's features are resized to the tokenizer's grid (bilinear, antialiased). Features
    of a sequence (TiTok) have no places in the image and are refused. Inside autocast the teacher computes in its
    type; all other arithmetic is in float32, or in float64 if the features are. The projection is trained with the
    tokenizer: it has the same optimizer, and checkpoints hold it. It is no part of the tokenizer and is not needed
    after the training.

    Source: Peng et al. 2022 (BEiT v2, VQ-KD), https://arxiv.org/abs/2208.06366, eq. 2, for the cosine; Yao et al. 2025
        (VA-VAE), https://arxiv.org/abs/2501.01423, section 3.2, and Yu et al. 2024 (REPA),
        https://arxiv.org/abs/2410.06940, eq. 8, for the alignment.
    Differs from the source: VA-VAE subtracts a margin from the cosine, and adds a term of pairwise similarities. REPA
        aligns a generator, through a projection of three layers.

    Args:
        teacher: A `Teacher`.
        source: What is compared: `"reconstruction"` (the output of the tokenizer's decoder), `"latent"` (the vectors
            before quantization), `"quantized"` (after it), or the name of a part of the tokenizer whose output is
            (B, C, h, w), such as `"decoder.stages.0"`.
        channels: The number of channels of the source, from which a 1x1 convolution projects to the teacher's; None
            for no projection, if the source has the teacher's number already.
        comparison: `"cosine"` for 1 - cosine (0..2), `"mse"` for the squared difference per channel.
        rgb: The channels of the images that the teacher sees as red, green and blue, such as (0, 0, 0) for grey images;
            None for images of 3 channels.

    Raises:
        TypeError: If the teacher is none.
        ValueError: If `channels` is below 1, there is no such comparison, or `rgb` is invalid.

    Example:
        >>> import torch
        >>> from vq.networks.teachers import EfficientNetTeacher
        >>> loss = FeatureAlignment(teacher=EfficientNetTeacher(), source="latent", channels=16)
        >>> loss(torch.randn(2, 16, 4, 4), torch.zeros(2, 3, 64, 64)).shape
        torch.Size([])
    """

    uses_autocast: ClassVar[bool] = True

    def __init__(
        self,
        *,
        teacher: nn.Module,
        source: str = "latent",
        channels: int | None = None,
        comparison: Comparison = "cosine",
        rgb: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.rgb = checked_rgb("FeatureAlignment", rgb)
        if not isinstance(teacher, Teacher):
            raise TypeError(
                f"FeatureAlignment: expected a teacher, such as TimmTeacher or EfficientNetTeacher, got "
                f"{type(teacher).__name__}"
            )
        if comparison not in get_args(Comparison):
            raise ValueError(
                f"FeatureAlignment: expected comparison to be cosine or mse, got {comparison!r}; take one of these"
            )
        self.teacher, self.source, self.comparison = teacher, source, comparison
        if channels is None:
            self.projection: nn.Module = nn.Identity()
        else:
            check_counts("FeatureAlignment", channels=channels)
            self.projection = nn.Conv2d(channels, teacher.channels, 1)

    def forward(
        self, reconstruction: Float[Tensor, "b c *position"], image: Float[Tensor, "b channels H W"]
    ) -> Float[Tensor, ""]:
        """Computes the mean over places and images of the distance between the features and the teacher's.

        Args:
            reconstruction: The features of the source; (b, c, h, w).
            image: The images, in [-1, 1].

        Raises:
            ValueError: If the features are those of a sequence, or their channels are not those of the projection or
                of the teacher.
            ChannelsError: If the images do not have the channels of `rgb`, or not 3 without it.
        """
        self._check(reconstruction)
        wanted = rearrange(self.teacher(rgb_view("FeatureAlignment", image, self.rgb)), "b h w c -> b c h w")
        with without_autocast(reconstruction):
            features = at_least_float32(reconstruction)
            weight = next(self.projection.parameters(), features)
            predicted = self.projection(features.to(weight.dtype)).to(features.dtype)
            wanted = at_least_float32(wanted).to(features.dtype)
            if wanted.shape[2:] != predicted.shape[2:]:
                wanted = F.interpolate(wanted, size=predicted.shape[2:], mode="bilinear", antialias=True)
            if self.comparison == "mse":
                return (predicted - wanted).square().mean()
            return (1 - (unit(predicted, dim=1) * unit(wanted, dim=1)).sum(dim=1)).mean()

    def _check(self, features: Tensor) -> None:
        if features.ndim != 4:
            raise ValueError(
                f"FeatureAlignment: expected features of the shape (B, C, h, w) from source={self.source!r}, got the "
                f"shape {tuple(features.shape)}; a sequence has no places at which a teacher's features could be "
                f"compared, take another source"
            )
        projection = self.projection
        wanted = projection.in_channels if isinstance(projection, nn.Conv2d) else self.teacher.channels
        if features.shape[1] != wanted:
            what = "its channels" if isinstance(projection, nn.Conv2d) else "those of the teacher"
            raise ValueError(
                f"FeatureAlignment: expected {wanted} channels ({what}), got {features.shape[1]} from "
                f"source={self.source!r}; set channels={features.shape[1]}"
            )
