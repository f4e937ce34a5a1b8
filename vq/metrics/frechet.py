"""Distances between the features of pictures and those of a reference set, as Gaussians (FID, sFID)."""

from typing import Literal

from vq.metrics.base import Images, SetMetric
from vq.metrics.features import BatchFeatures, score_name
from vq.metrics.statistics import MomentSums, ReferenceStatistics, reference_path, warn_if_singular
from vq.networks.frozen.features import FeatureNetwork
from vq.ops.frechet import frechet_distance
from vq.registry import METRICS

Kind = Literal["pool", "spatial"]


class _Reference:
    """The other side: a file's statistics, or the sums of the real images of the same pass."""

    def __init__(self, place: str, network: FeatureNetwork, kind: Kind, name: str | None) -> None:
        if kind not in network.sizes:
            raise ValueError(
                f"{place}: expected a network with {kind!r} features, got {network.name} with "
                f"{', '.join(network.sizes)}; use InceptionNetwork, or FIDMetric"
            )
        self.name = name
        self.statistics: ReferenceStatistics | None = None
        if name is not None:
            path = reference_path(name)
            self.statistics = ReferenceStatistics.load(path)
            self.statistics.check(network, path)
            self.statistics.moments(kind)

    def stamp(self) -> dict[str, str | int | None]:
        if self.statistics is None:
            return {"reference": "the images of the same pass"}
        stamp = self.statistics.stamp
        return {
            "reference": stamp.dataset or self.name,
            "reference_sha256": stamp.dataset_sha256,
            "reference_images": stamp.num_images,
        }


@METRICS.register_module()
class FIDMetric(SetMetric):
    """Compares the Gaussians of pictures and reference in a network's features (key `fid`).

    The means and covariances are summed in float64, in memory that does not grow with the set, and over all
    ranks. Both sides are rounded to bytes first. Only with the published Inception weights is the key `fid`;
    with any other network it is `frechet[NAME]`. The score falls with the number of images, so compare it
    only with one of as many; with no more images than dimensions it warns.

    Source: Heusel et al. 2017, https://arxiv.org/abs/1706.08500, eq. 6.
    Differs from the source: the trace of the root comes from eigenvalues (`frechet_distance`).

    Args:
        network: Whose `pool` features are compared; its protocol says how images are resized.
        reference: `imagenet_val` is `fid/imagenet_val.npz` below the pretrained folder, what ends in `.npz` is a
            file; None compares with the real images of the same pass (rFID).

    Raises:
        FileNotFoundError: If there is no such file; the message says which command makes it.
        ValueError: If the file is damaged, or of another protocol or network.
    """

    higher_is_better = False

    def __init__(self, *, network: FeatureNetwork, reference: str | None = None) -> None:
        super().__init__()
        self.reference = _Reference("FIDMetric", network, "pool", reference)
        self.features = BatchFeatures(network=network)
        self.score = score_name(network, "fid", "frechet")
        self.found = MomentSums(size=network.sizes["pool"])
        self.wanted = MomentSums(size=network.sizes["pool"]) if reference is None else None

    @property
    def needs_real(self) -> bool:
        """Whether there is no file of reference statistics."""
        return self.wanted is not None

    def add_made(self, made: Images, decides: Images) -> None:
        """Adds the features to the sums."""
        self.found.add(self.features(made)["pool"])

    def add_real(self, real: Images) -> None:
        """Adds the features to the sums of the other side."""
        assert self.wanted is not None  # else it is not called
        self.wanted.add(self.features(real)["pool"])

    def reset(self) -> None:
        """Forgets all images."""
        super().reset()
        _reset(self)

    def sync(self) -> None:
        """Joins the sums of all ranks; every rank must call it. A second call does nothing."""
        _sync(self)
        super().sync()

    def result(self) -> dict[str, float]:
        """The distance, at least 0 but for rounding; it warns if a covariance is singular.

        Raises:
            ValueError: If there were fewer than two images.
        """
        return {self.score: _distance(self, "pool")}

    def stamp(self) -> dict[str, str | int | None]:
        """Protocol, network, its sha256, resizing, numbers of images, and the reference."""
        return _stamp(self)


@METRICS.register_module()
class SpatialFIDMetric(SetMetric):
    """Compares the Gaussians of features that still know where they are (key `sfid`).

    As `FIDMetric`, with 7 channels on a 17 x 17 grid: sensitive to layout where FID sees none.

    Source: Nash et al. 2021, https://arxiv.org/abs/2103.03841, section 4.1, with the layer of ADM's evaluator.

    Args:
        network: Whose `spatial` features are compared.
        reference: See `FIDMetric`; the file must have been made with spatial features.

    Raises:
        FileNotFoundError: See `FIDMetric`.
        ValueError: See `FIDMetric`; or if the network or the file has no spatial features.
    """

    higher_is_better = False

    def __init__(self, *, network: FeatureNetwork, reference: str | None = None) -> None:
        super().__init__()
        self.reference = _Reference("SpatialFIDMetric", network, "spatial", reference)
        self.features = BatchFeatures(network=network)
        self.score = score_name(network, "sfid", "spatial_frechet")
        self.found = MomentSums(size=network.sizes["spatial"])
        self.wanted = MomentSums(size=network.sizes["spatial"]) if reference is None else None

    @property
    def needs_real(self) -> bool:
        """Whether there is no file of reference statistics."""
        return self.wanted is not None

    def add_made(self, made: Images, decides: Images) -> None:
        """Adds the features to the sums."""
        self.found.add(self.features(made)["spatial"])

    def add_real(self, real: Images) -> None:
        """Adds the features to the sums of the other side."""
        assert self.wanted is not None  # else it is not called
        self.wanted.add(self.features(real)["spatial"])

    def reset(self) -> None:
        """Forgets all images."""
        super().reset()
        _reset(self)

    def sync(self) -> None:
        """Joins the sums of all ranks; every rank must call it. A second call does nothing."""
        _sync(self)
        super().sync()

    def result(self) -> dict[str, float]:
        """The distance, at least 0 but for rounding; it warns if a covariance is singular.

        Raises:
            ValueError: If there were fewer than two images.
        """
        return {self.score: _distance(self, "spatial")}

    def stamp(self) -> dict[str, str | int | None]:
        """Protocol, network, its sha256, resizing, numbers of images, and the reference."""
        return _stamp(self)


def _reset(metric: FIDMetric | SpatialFIDMetric) -> None:
    metric.features.forget()
    for sums in (metric.found, metric.wanted):
        if sums is not None:
            sums.reset()


def _sync(metric: FIDMetric | SpatialFIDMetric) -> None:
    metric.features.forget()
    if not metric.is_synced:
        for sums in (metric.found, metric.wanted):
            if sums is not None:
                sums.sync()


def _distance(metric: FIDMetric | SpatialFIDMetric, kind: Kind) -> float:
    place = type(metric).__name__
    found = metric.found.result(place)
    if metric.wanted is not None:
        wanted = metric.wanted.result(place)
    else:
        assert metric.reference.statistics is not None  # one of the two is there since __init__
        wanted = metric.reference.statistics.moments(kind)
    warn_if_singular(place, int(metric.found.count), metric.found.size)
    return frechet_distance(*found, *wanted).item()


def _stamp(metric: FIDMetric | SpatialFIDMetric) -> dict[str, str | int | None]:
    stamp = metric.features.network.stamp() | {"num_images": int(metric.found.count)}
    stamp |= metric.reference.stamp()
    return stamp if metric.wanted is None else stamp | {"reference_images": int(metric.wanted.count)}
