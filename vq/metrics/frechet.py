"""The Fréchet distance between the features of two sets of images, as Gaussians (FID, sFID)."""

from collections.abc import Sequence
from typing import Literal

from jaxtyping import Float32, Float64
from torch import Tensor

from vq.metrics.base import Images
from vq.metrics.features import score_name
from vq.metrics.moments import MomentSums
from vq.metrics.sets import FeatureSummary, SetMetric
from vq.metrics.statistics import ReferenceStatistics, reference_path, warn_if_singular
from vq.networks.frozen.features import FeatureNetwork
from vq.ops.frechet import frechet_distance
from vq.registry import METRICS

Kind = Literal["pool", "spatial"]


class GaussianSummary(FeatureSummary):
    """Sums the means and covariances of features, and of those they are compared with, in constant memory.

    Args:
        place: The class that takes the summary. Error messages start with it.
        network: The network whose features are summed.
        kind: The kind of feature.
        reference: The reference statistics, as in `FIDMetric`; None to compare with the real images of the same pass.

    Raises:
        ValueError: If the network has no such features, or the file is damaged or of another protocol or network.
        FileNotFoundError: If the file does not exist.
    """

    def __init__(self, place: str, *, network: FeatureNetwork, kind: Kind, reference: str | None) -> None:
        super().__init__()
        if kind not in network.sizes:
            raise ValueError(
                f"{place}: expected a network with {kind!r} features, got {network.name} with "
                f"{', '.join(network.sizes)}; use InceptionNetwork, or FIDMetric"
            )
        self.place, self.kind, self.name = place, kind, reference
        self.statistics = None if reference is None else _statistics(reference, network, kind)
        self.needs_real = reference is None
        self.found = MomentSums(size=network.sizes[kind])
        self.real = MomentSums(size=network.sizes[kind]) if self.needs_real else None

    def add(self, features: Float32[Tensor, "b size"], sample_by: Images) -> None:
        """Adds the features of reconstructed or generated images to the sums."""
        self.found.add(features)

    def add_real(self, features: Float32[Tensor, "b size"], sample_by: Images) -> None:
        """Adds the features of real images to the other sums."""
        assert self.real is not None  # needs_real says so
        self.real.add(features)

    def reset(self) -> None:
        """Discards all features."""
        for sums in self._sums():
            sums.reset()

    def sync(self) -> None:
        """Replaces the sums by those over all ranks."""
        for sums in self._sums():
            sums.sync()

    def distance(self) -> float:
        """Computes the Fréchet distance, which is at least 0 up to rounding; it warns if a covariance is singular.

        Raises:
            StatisticsError: If there are fewer than two images on a side.
        """
        found, wanted = self.found.result(self.place), self._wanted()
        warn_if_singular(self.place, int(self.found.count), self.found.size)
        return frechet_distance(*found, *wanted).item()

    def stamp(self, num_images: int) -> dict[str, str | int | None]:
        """Returns the name of the reference and its number of images."""
        if self.real is not None:
            return {"reference": "the images of the same pass", "reference_images": int(self.real.count)}
        assert self.statistics is not None  # one of the two exists
        stamp = self.statistics.stamp
        return {
            "reference": stamp.dataset or self.name,
            "reference_sha256": stamp.dataset_sha256,
            "reference_images": stamp.num_images,
        }

    def _sums(self) -> list[MomentSums]:
        return [self.found] if self.real is None else [self.found, self.real]

    def _wanted(self) -> tuple[Float64[Tensor, "size"], Float64[Tensor, "size size"]]:
        if self.real is not None:
            return self.real.result(self.place)
        assert self.statistics is not None  # one of the two exists
        return self.statistics.moments(self.kind)


@METRICS.register_module()
class FIDMetric(SetMetric):
    """Computes the Fréchet distance between the Gaussians of two sets' features (FID; key `fid`).

    Means and covariances are summed in float64 over all ranks, in memory that does not grow with the set. Images of
    both sets are rounded to bytes first. The key is `fid` only with the published Inception weights, else
    `frechet[NAME]`. The score decreases with the number of images, so compare only scores of equally many; with no more
    images than dimensions of the features it warns.

    Source: Heusel et al. 2017, https://arxiv.org/abs/1706.08500, eq. 6.
    Differs from the source: the trace of the matrix square root is computed from eigenvalues (`frechet_distance`).

    Args:
        network: The network whose `pool` features are compared; its protocol decides how images are resized.
        reference: The reference statistics: a file if it ends in `.npz`, else a name such as `imagenet_val`, which is
            `fid/imagenet_val.npz` below the pretrained folder. None compares with the real images of the same pass
            (rFID).
        rgb: The channels of the images that the network sees as red, green and blue, such as (0, 0, 0) for grey images;
            None for images of 3 channels.

    Raises:
        FileNotFoundError: If there is no such file. The message says which command makes it.
        ValueError: If the file is damaged, or of another protocol or network, or `rgb` is invalid.
    """

    higher_is_better = False
    summary: GaussianSummary

    def __init__(
        self,
        *,
        network: FeatureNetwork,
        reference: str | None = None,
        rgb: Sequence[int] | None = None,
    ) -> None:
        summary = GaussianSummary("FIDMetric", network=network, kind="pool", reference=reference)
        super().__init__(network=network, kind="pool", summary=summary, rgb=rgb)
        self.score = score_name(network, "fid", "frechet")

    def ranked_scores(self) -> Sequence[str]:
        """Names the scores by which models can be ranked."""
        return [self.score]

    def result(self) -> dict[str, float]:
        """Computes the distance, which is at least 0 up to rounding; it warns if a covariance is singular.

        Raises:
            StatisticsError: If there are fewer than two images on a side.
        """
        return {self.score: self.summary.distance()}


@METRICS.register_module()
class SpatialFIDMetric(SetMetric):
    """Computes the Fréchet distance between the Gaussians of two sets' spatial features (sFID; key `sfid`).

    It is computed as by `FIDMetric`, from 7 channels on a 17 x 17 grid, and so it is sensitive to differences in layout
    that FID ignores.

    Source: Nash et al. 2021, https://arxiv.org/abs/2103.03841, section 4.1, with the layer of ADM's evaluator.

    Args:
        network: The network whose `spatial` features are compared.
        reference: The reference statistics, as in `FIDMetric`; the file must include spatial features.
        rgb: The channels that the network sees, as in `FIDMetric`.

    Raises:
        FileNotFoundError: If there is no such file. The message says which command makes it.
        ValueError: If the file is damaged, or of another protocol or network, or the file or the network has no spatial
            features.
    """

    higher_is_better = False
    summary: GaussianSummary

    def __init__(
        self,
        *,
        network: FeatureNetwork,
        reference: str | None = None,
        rgb: Sequence[int] | None = None,
    ) -> None:
        summary = GaussianSummary("SpatialFIDMetric", network=network, kind="spatial", reference=reference)
        super().__init__(network=network, kind="spatial", summary=summary, rgb=rgb)
        self.score = score_name(network, "sfid", "spatial_frechet")

    def ranked_scores(self) -> Sequence[str]:
        """Names the scores by which models can be ranked."""
        return [self.score]

    def result(self) -> dict[str, float]:
        """Computes the distance, which is at least 0 up to rounding; it warns if a covariance is singular.

        Raises:
            StatisticsError: If there are fewer than two images on a side.
        """
        return {self.score: self.summary.distance()}


def _statistics(reference: str, network: FeatureNetwork, kind: Kind) -> ReferenceStatistics:
    path = reference_path(reference)
    statistics = ReferenceStatistics.load(path)
    statistics.check(network, path)
    statistics.moments(kind)
    return statistics
