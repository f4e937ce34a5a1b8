"""Statistics of a reference set's features, and the Fréchet distance between two of them."""

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from jaxtyping import Float64
from torch import Tensor

from vq import known_weights
from vq.metrics.stamp import Stamp, StatisticsError
from vq.metrics.statistics_file import command_for, read_statistics, shown_path, write_statistics
from vq.networks.frozen.features import FeatureNetwork
from vq.ops.frechet import frechet_distance


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ReferenceStatistics:
    """The mean and covariance of a set's features, with their stamp.

    Attributes:
        mean: The mean of the pooled features.
        covariance: The covariance of the pooled features, with division by the number of images less one.
        spatial_mean: The mean of the spatial features (sFID), if they were computed.
        spatial_covariance: The covariance of the spatial features, if they were computed.
        stamp: What the statistics were computed from.
    """

    mean: Float64[Tensor, "dim"]
    covariance: Float64[Tensor, "dim dim"]
    spatial_mean: Float64[Tensor, "spatial"] | None = None
    spatial_covariance: Float64[Tensor, "spatial spatial"] | None = None
    stamp: Stamp

    def moments(
        self, kind: Literal["pool", "spatial"]
    ) -> tuple[Float64[Tensor, "dim"], Float64[Tensor, "dim dim"]]:
        """Returns the mean and covariance of a kind of feature.

        Raises:
            StatisticsError: If they were not computed.
        """
        if kind == "pool":
            return self.mean, self.covariance
        if self.spatial_mean is None or self.spatial_covariance is None:
            raise StatisticsError(
                f"ReferenceStatistics: expected spatial features (mu_s, sigma_s) for sFID, got none in ({self.stamp}); "
                "make the file again with `vq fid`, or leave sFID out"
            )
        return self.spatial_mean, self.spatial_covariance

    def save(self, path: str | Path) -> None:
        """Writes a `.npz` file atomically, without pickles and with a checksum; pytorch-fid can read it too.

        Args:
            path: The file. Its folder is created if it does not exist.
        """
        has_spatial = self.spatial_mean is not None and self.spatial_covariance is not None
        spatial = self.moments("spatial") if has_spatial else None
        write_statistics(Path(path), pool=self.moments("pool"), spatial=spatial, stamp=self.stamp)

    @classmethod
    def load(cls, path: str | Path) -> "ReferenceStatistics":
        """Reads a file of this project, of pytorch-fid (mu, sigma), or of ADM (mu, sigma, mu_s, sigma_s).

        The last two have no stamp: they count as made with the published Inception weights, pytorch-fid's with its
        own protocol and ADM's with the resizing of TensorFlow 1, which is that of `torch-fidelity`.

        Args:
            path: The file. Nothing in it is executed, and no more memory is used than such statistics need.

        Raises:
            MissingStatisticsError: If the file does not exist. The message says which command makes it.
            StatisticsError: If the file is damaged, holds no statistics, or holds values that no set can have.
        """
        pool, spatial, stamp = read_statistics(Path(path))
        return cls(
            mean=pool[0],
            covariance=pool[1],
            spatial_mean=None if spatial is None else spatial[0],
            spatial_covariance=None if spatial is None else spatial[1],
            stamp=stamp,
        )

    def check(self, network: FeatureNetwork, path: str | Path) -> None:
        """Checks that the statistics are of the protocol, the extractor and the feature lengths of a network.

        Args:
            network: The network whose features are to be compared with the statistics.
            path: The file of the statistics, for the error message.

        Raises:
            StatisticsError: If they are not.
        """
        wanted = Stamp.of(network)
        if not self.stamp.agrees(wanted):
            raise StatisticsError(
                f"reference statistics: expected ({wanted}) as the metric uses, got ({self.stamp}) in "
                f"{shown_path(path)}; use the protocol and network of the file, or make it again with "
                f"`{command_for(Path(path))}`"
            )
        for kind, mean in (("pool", self.mean), ("spatial", self.spatial_mean)):
            size = network.sizes.get(kind)
            if mean is not None and size is not None and len(mean) != size:
                raise StatisticsError(
                    f"reference statistics: expected {kind} features of {size} numbers, as {network.name} makes them, "
                    f"got {len(mean)} in {shown_path(path)}; make the file again with `{command_for(Path(path))}`"
                )


def frechet(
    a: ReferenceStatistics, b: ReferenceStatistics, *, kind: Literal["pool", "spatial"] = "pool"
) -> float:
    """Computes the Fréchet distance between the statistics of two sets; it warns if a covariance is singular.

    Args:
        a: The statistics of one set.
        b: The statistics of the other set.
        kind: The kind of feature: `pool` for FID, `spatial` for sFID.

    Raises:
        StatisticsError: If the two are of different protocols or extractors, or have no such features.
    """
    if not a.stamp.agrees(b.stamp):
        raise StatisticsError(
            f"frechet: expected statistics of one protocol and one extractor, got ({a.stamp}) and ({b.stamp}); "
            "make one of them again"
        )
    for statistics in (a, b):
        warn_if_singular("frechet", statistics.stamp.num_images, len(statistics.moments(kind)[0]))
    return frechet_distance(*a.moments(kind), *b.moments(kind)).item()


def warn_if_singular(place: str, num_images: int | None, size: int) -> None:
    """Warns if there are too few images for a covariance of full rank: the distance is then dominated by its bias.

    Args:
        place: The class or function that computes the distance. The warning starts with it.
        num_images: The number of images; None if it is unknown.
        size: The length of a feature vector.
    """
    if num_images is not None and num_images <= size:
        warnings.warn(
            f"{place}: {num_images} images span less than the {size} dimensions of the features; the distance is "
            "correct but dominated by its bias, so compare it only with one of as many images, and report KID",
            stacklevel=2,
        )


def reference_path(name: str) -> Path:
    """Returns the path of the statistics of a reference set.

    Args:
        name: The path of a file if it ends in `.npz`, else a name such as `imagenet_val`, which is
            `fid/imagenet_val.npz` below the pretrained folder.

    Example:
        >>> reference_path("my/statistics.npz").as_posix()
        'my/statistics.npz'
    """
    return Path(name) if name.endswith(".npz") else known_weights.root() / "fid" / f"{name}.npz"
