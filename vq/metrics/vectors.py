"""Scores of a tokenizer's vectors: how exact quantization is, and how well a teacher's features are predicted."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from vq.metrics.base import Images, VectorMetric
from vq.metrics.samples import cosine_distance
from vq.ops.directions import unit
from vq.ops.images import checked_rgb, rgb_view
from vq.registry import METRICS

UNIT_TOLERANCE = 0.01
"""Largest deviation from length 1 of a code that counts as a unit vector; rounding to bfloat16 causes 0.004."""


@METRICS.register_module()
class QuantizationError(VectorMetric):
    """Computes the mean squared distance of vectors and their codes (`quantization_error`, also `..._relative`).

    `quantization_error` is the mean of |z - e|^2 over all vectors of the set: the inertia of k-means divided by the
    number of vectors. `quantization_error_relative` is this divided by the variance of the vectors, the mean of
    |z - mean|^2. It is 1 for a single code at the mean, and does not depend on the scale of z.

    The distance is that in which the code was chosen: if all codes of a batch have length 1, as with `CosineDistance`,
    the vectors are divided by their length first.

    Args:
        codebook_dim: The length of a code.

    Raises:
        ValueError: If `codebook_dim` is below 1.
    """

    higher_is_better = False
    squared_distance: Tensor
    squared_length: Tensor
    total: Tensor
    vectors: Tensor

    def __init__(self, *, codebook_dim: int) -> None:
        super().__init__()
        if codebook_dim < 1:
            raise ValueError(
                f"QuantizationError: expected a codebook_dim of at least 1, got {codebook_dim}; give the quantizer's"
            )
        self.codebook_dim = codebook_dim
        self.add_sum("squared_distance")
        self.add_sum("squared_length")
        self.add_sum("total", shape=(codebook_dim,))
        self.add_sum("vectors", dtype=torch.int64)

    def accumulate(
        self,
        *,
        image: Images,
        latent: Float[Tensor, "b *position dim"],
        quantized: Float[Tensor, "b *_position _dim"],
        features: Float[Tensor, "b c rows columns"] | None,
    ) -> None:
        """Adds the distances of a batch.

        Raises:
            ValueError: If `latent` and `quantized` differ in shape, or their last axis is not `codebook_dim`.
        """
        if latent.shape != quantized.shape or latent.shape[-1] != self.codebook_dim:
            raise ValueError(
                f"QuantizationError: expected vectors and codes of one shape, the last axis {self.codebook_dim} "
                f"(codebook_dim), got {tuple(latent.shape)} and {tuple(quantized.shape)}; a tokenizer with several "
                f"quantizers has no single error"
            )
        z = latent.reshape(-1, self.codebook_dim).double()
        code = quantized.reshape(-1, self.codebook_dim).double()
        # Decided on the device, without waiting for it.
        is_spherical = ((code.norm(dim=1) - 1).abs() < UNIT_TOLERANCE).all()
        z = torch.where(is_spherical, unit(z), z)
        self.squared_distance += (z - code).square().sum()
        self.squared_length += z.square().sum()
        self.total += z.sum(dim=0)
        self.vectors += len(z)

    def ranked_scores(self) -> Sequence[str]:
        """Names the scores by which models can be ranked."""
        return ["quantization_error", "quantization_error_relative"]

    def result(self) -> dict[str, float]:
        """Computes the errors; the relative one is NaN if all vectors are equal."""
        error = self.squared_distance / self.vectors
        variance = self.squared_length / self.vectors - (self.total / self.vectors).square().sum()
        relative = torch.where(variance > 0, error / variance, torch.nan)
        return {"quantization_error": error.item(), "quantization_error_relative": relative.item()}


@METRICS.register_module()
class TeacherCosine(VectorMetric):
    """Averages 1 minus the cosine of a teacher's features and their prediction (key `teacher_cosine`, in 0..2).

    It is the training loss of VQ-KD as a score: the mean over the positions of an image, and over images. If the grid
    of the teacher differs from that of the prediction, the teacher's features are resized (bilinear, antialiased), as
    in `FeatureAlignment`.

    Source: Peng et al. 2022, https://arxiv.org/abs/2208.06366, eq. 2.

    Args:
        teacher: Maps images in [-1, 1] to features (batch, rows, columns, channels), such as a
            `vq.networks.teachers.Teacher`. It computes in float32, also inside autocast.
        rgb: The channels of the images that the teacher sees as red, green and blue, such as (0, 0, 0) for grey images;
            None for images of 3 channels.

    Raises:
        ValueError: If `rgb` is invalid.
    """

    higher_is_better = False
    distance: Tensor

    def __init__(self, *, teacher: nn.Module, rgb: Sequence[int] | None = None) -> None:
        super().__init__()
        self.teacher, self.rgb = teacher, checked_rgb("TeacherCosine", rgb)
        self.add_sum("distance")

    def accumulate(
        self,
        *,
        image: Images,
        latent: Float[Tensor, "b *position dim"],
        quantized: Float[Tensor, "b *_position _dim"],
        features: Float[Tensor, "b c rows columns"] | None,
    ) -> None:
        """Adds the distances of a batch.

        Raises:
            ValueError: If the tokenizer predicts no features, or those of a teacher with another number of channels.
        """
        if features is None:
            raise ValueError(
                "TeacherCosine: expected a tokenizer that predicts features (FeatureTokenizer), got one that "
                "reconstructs images; leave this metric out"
            )
        with torch.autocast(image.device.type, enabled=False):
            target = self.teacher(rgb_view("TeacherCosine", image, self.rgb)).movedim(-1, 1)
        if target.shape[1] != features.shape[1]:
            raise ValueError(
                f"TeacherCosine: expected features with {target.shape[1]} channels, those of "
                f"{type(self.teacher).__name__}, got {features.shape[1]}; the tokenizer was trained with another "
                f"teacher, or has no decoder: Cluster is scored by QuantizationError"
            )
        if target.shape[2:] != features.shape[2:]:
            target = F.interpolate(target, size=features.shape[2:], mode="bilinear", antialias=True)
        self.distance += cosine_distance(features.movedim(1, -1), target.movedim(1, -1)).sum()

    def ranked_scores(self) -> Sequence[str]:
        """Names the scores by which models can be ranked."""
        return ["teacher_cosine"]

    def result(self) -> dict[str, float]:
        """Computes the mean over images."""
        return {"teacher_cosine": (self.distance / self.images).item()}
