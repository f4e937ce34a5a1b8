"""Statistics of a reference set's features: how they are made, kept in a file with a stamp, and compared."""

import json
import os
import tempfile
import warnings
import zipfile
import zlib
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float64, Shaped, UInt8
from numpy.typing import NDArray
from torch import Tensor, nn

from vq import distributed, pretrained
from vq.networks.features import FeatureNetwork
from vq.ops.frechet import frechet_distance, moments

_BINDING = ("protocol", "extractor", "extractor_sha256")


@dataclass(frozen=True, slots=True, kw_only=True)
class Stamp:
    """What statistics were made of and how; None is unknown.

    Attributes:
        protocol: Whose rules of resizing, such as `pytorch-fid`.
        extractor: The feature network.
        extractor_sha256: Of its weights, in hex.
        resize: The protocol's kernel in words.
        num_images: How many images.
        dataset: The set's name.
        dataset_sha256: Of the keys of its images and of what was done to them, in hex.
        preprocessing: What was done to the images before the network, in words.
    """

    protocol: str | None = None
    extractor: str | None = None
    extractor_sha256: str | None = None
    resize: str | None = None
    num_images: int | None = None
    dataset: str | None = None
    dataset_sha256: str | None = None
    preprocessing: str | None = None

    @classmethod
    def of(cls, network: FeatureNetwork, **rest: Any) -> "Stamp":
        """The stamp of features of a network; `rest` are the other attributes."""
        return cls(
            protocol=network.protocol,
            extractor=network.name,
            extractor_sha256=network.sha256,
            resize=network.resize,
            **rest,
        )

    def as_dict(self) -> dict[str, str | int | None]:
        """The attributes by name, ready for JSON."""
        return asdict(self)

    def agrees(self, other: "Stamp") -> bool:
        """Whether protocol, extractor and its weights are equal as far as both are known."""
        pairs = [(getattr(self, name), getattr(other, name)) for name in _BINDING]
        return all(a == b or a is None or b is None for a, b in pairs)

    def __str__(self) -> str:
        known = {name: value for name, value in self.as_dict().items() if value is not None}
        return ", ".join(f"{name} {value}" for name, value in known.items())


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ReferenceStatistics:
    """The mean and covariance of a set's features, with their stamp.

    Attributes:
        mean: Of the pooled features.
        covariance: Of the pooled features, divided by the number of images less one.
        spatial_mean: Of sFID's features, if they were computed.
        spatial_covariance: Of sFID's features, if they were computed.
        stamp: What they were made of.
    """

    mean: Float64[Tensor, "dim"]
    covariance: Float64[Tensor, "dim dim"]
    spatial_mean: Float64[Tensor, "spatial"] | None = None
    spatial_covariance: Float64[Tensor, "spatial spatial"] | None = None
    stamp: Stamp

    def moments(
        self, kind: Literal["pool", "spatial"]
    ) -> tuple[Float64[Tensor, "dim"], Float64[Tensor, "dim dim"]]:
        """The mean and covariance of a kind of feature.

        Raises:
            ValueError: If they were not computed.
        """
        if kind == "pool":
            return self.mean, self.covariance
        if self.spatial_mean is None or self.spatial_covariance is None:
            raise ValueError(
                f"ReferenceStatistics: expected spatial features (mu_s, sigma_s) for sFID, got none in ({self.stamp}); "
                "make the file anew with `python -m vq.fid`, or leave sFID out"
            )
        return self.spatial_mean, self.spatial_covariance

    def save(self, path: str | Path) -> None:
        """Writes a `.npz` without pickles, whole or not at all; pytorch-fid can read it too.

        Args:
            path: Its folder is made if it is missing.
        """
        arrays = {"mu": self.mean.cpu().numpy(), "sigma": self.covariance.cpu().numpy()}
        if self.spatial_mean is not None and self.spatial_covariance is not None:
            arrays |= {
                "mu_s": self.spatial_mean.cpu().numpy(),
                "sigma_s": self.spatial_covariance.cpu().numpy(),
            }
        stamp: NDArray[Any] = np.array(json.dumps(self.stamp.as_dict()))
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        unfinished = Path(name)
        try:
            with os.fdopen(handle, "wb") as file:
                np.savez(file, allow_pickle=False, stamp=stamp, **arrays)
                file.flush()
                os.fsync(file.fileno())
            unfinished.chmod(0o644)  # mkstemp's file is for its owner alone
            unfinished.replace(path)
        finally:
            unfinished.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: str | Path) -> "ReferenceStatistics":
        """Reads such a file, or pytorch-fid's (mu, sigma), or an ADM reference batch (mu, sigma, mu_s, sigma_s).

        The last two have no stamp: they count as made with the published Inception weights, pytorch-fid's by
        its own protocol and ADM's by TensorFlow's resizing, that of `torch-fidelity`. The images in an ADM batch
        are not read.

        Raises:
            FileNotFoundError: If there is no such file; the message says which command makes it.
            ValueError: If it is cut short, holds no statistics, or they are not finite and of one size.
        """
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(
                f"reference statistics: expected a file at {path}, got none; make it with `{_command(path)}`"
            )
        found = _arrays(path)
        mean, covariance = _pair(path, found, "mu", "sigma")
        spatial: tuple[Tensor | None, Tensor | None] = (None, None)
        if "mu_s" in found or "sigma_s" in found:
            spatial = _pair(path, found, "mu_s", "sigma_s")
        if "stamp" in found:
            stamp = _parse(path, found["stamp"])
        else:
            stamp = Stamp(
                protocol="torch-fidelity" if "mu_s" in found else "pytorch-fid", extractor="inception"
            )
        return cls(
            mean=mean,
            covariance=covariance,
            spatial_mean=spatial[0],
            spatial_covariance=spatial[1],
            stamp=stamp,
        )

    def check(self, network: FeatureNetwork, path: str | Path) -> None:
        """Refuses statistics of another protocol or extractor than the network's.

        Args:
            network: What is to be compared with them.
            path: Where they came from, for the message.

        Raises:
            ValueError: With both stamps.
        """
        wanted = Stamp.of(network)
        if not self.stamp.agrees(wanted):
            raise ValueError(
                f"reference statistics: expected ({wanted}) as the metric has it, got ({self.stamp}) in {path}; choose "
                f"the protocol and network of the file, or make it anew with `{_command(Path(path))}`"
            )


class StatisticsCollector(nn.Module):
    """Sums up the features of a set, batch by batch and rank by rank, in float64 and constant memory.

    Args:
        network: Its `pool` features are summed, and its `spatial` ones if it has some.
    """

    def __init__(self, *, network: FeatureNetwork) -> None:
        super().__init__()
        self.network = network
        self.pool = MomentSums(size=network.sizes["pool"])
        self.spatial = MomentSums(size=network.sizes["spatial"]) if "spatial" in network.sizes else None

    def update(self, image: UInt8[Tensor, "b 3 h w"]) -> None:
        """Adds a batch of images."""
        features = self.network(image)
        self.pool.add(features["pool"])
        if self.spatial is not None:
            self.spatial.add(features["spatial"])

    def sync(self) -> None:
        """Replaces the sums by those over all ranks; every rank must call it, once."""
        self.pool.sync()
        if self.spatial is not None:
            self.spatial.sync()

    def result(
        self,
        *,
        dataset: str | None = None,
        dataset_sha256: str | None = None,
        preprocessing: str | None = None,
    ) -> ReferenceStatistics:
        """The statistics of all images seen.

        Args:
            dataset: See `Stamp`.
            dataset_sha256: See `Stamp`.
            preprocessing: See `Stamp`.

        Raises:
            ValueError: If there were fewer than two images.
        """
        mean, covariance = self.pool.result("StatisticsCollector")
        spatial = (None, None) if self.spatial is None else self.spatial.result("StatisticsCollector")
        stamp = Stamp.of(
            self.network,
            num_images=int(self.pool.count),
            dataset=dataset,
            dataset_sha256=dataset_sha256,
            preprocessing=preprocessing,
        )
        return ReferenceStatistics(
            mean=mean,
            covariance=covariance,
            spatial_mean=spatial[0],
            spatial_covariance=spatial[1],
            stamp=stamp,
        )


class MomentSums(nn.Module):
    """Sums vectors and their outer products in float64; the sums are buffers outside the state dict.

    Args:
        size: The length of a vector.
    """

    total: Tensor
    outer: Tensor
    count: Tensor

    def __init__(self, *, size: int) -> None:
        super().__init__()
        self.size = size
        self.register_buffer("total", torch.zeros(size, dtype=torch.float64), persistent=False)
        self.register_buffer("outer", torch.zeros(size, size, dtype=torch.float64), persistent=False)
        self.register_buffer("count", torch.zeros((), dtype=torch.int64), persistent=False)

    @torch.no_grad()
    def add(self, features: Shaped[Tensor, "b size"]) -> None:
        """Adds some vectors."""
        features = features.double()
        self.total += features.sum(dim=0)
        self.outer.addmm_(features.T, features)
        self.count += len(features)

    def sync(self) -> None:
        """Replaces the sums by those over all ranks."""
        for buffer in (self.total, self.outer, self.count):
            buffer.copy_(distributed.all_reduce_sum(buffer))

    def reset(self) -> None:
        """Forgets all vectors."""
        for buffer in (self.total, self.outer, self.count):
            buffer.zero_()

    def result(self, place: str) -> tuple[Float64[Tensor, "size"], Float64[Tensor, "size size"]]:
        """The mean and covariance, on the CPU.

        Args:
            place: Who asks, for the error.

        Raises:
            ValueError: If there were fewer than two vectors.
        """
        count = int(self.count)
        if count < 2:
            raise ValueError(
                f"{place}: expected at least two images for a covariance, got {count}; evaluate more images"
            )
        return moments(self.total.cpu(), self.outer.cpu(), count)


def frechet(
    a: ReferenceStatistics, b: ReferenceStatistics, *, kind: Literal["pool", "spatial"] = "pool"
) -> float:
    """The Fréchet distance of two sets' statistics, with a warning if a covariance is singular.

    Args:
        a: One set's.
        b: The other's.
        kind: `pool` for FID, `spatial` for sFID.

    Raises:
        ValueError: If the two were made by different protocols or extractors, or have no such features.
    """
    if not a.stamp.agrees(b.stamp):
        raise ValueError(
            f"frechet: expected statistics of one protocol and one extractor, got ({a.stamp}) and ({b.stamp}); "
            "make one of them anew"
        )
    for statistics in (a, b):
        warn_if_singular("frechet", statistics.stamp.num_images, len(statistics.moments(kind)[0]))
    return frechet_distance(*a.moments(kind), *b.moments(kind)).item()


def warn_if_singular(place: str, num_images: int | None, size: int) -> None:
    """Warns if there are too few images for a covariance of full rank: the distance is then mostly bias."""
    if num_images is not None and num_images <= size:
        warnings.warn(
            f"{place}: {num_images} images span less than the {size} dimensions of the features; the distance is right "
            "but mostly bias, so compare it only with one of as many images, and report KID",
            stacklevel=2,
        )


def reference_path(name: str) -> Path:
    """Where the statistics of a reference set lie.

    Args:
        name: `imagenet_val` is `fid/imagenet_val.npz` below the pretrained folder; what ends in `.npz` is a file's
            path as it stands.

    Example:
        >>> reference_path("my/statistics.npz").as_posix()
        'my/statistics.npz'
    """
    return Path(name) if name.endswith(".npz") else pretrained.root() / "fid" / f"{name}.npz"


def _command(path: Path) -> str:
    dataset, _, split = path.stem.rpartition("_")
    if not dataset or split not in ("train", "val"):
        return "python -m vq.fid DATASET"
    return f"python -m vq.fid {dataset}" + (" --train" if split == "train" else "")


def _arrays(path: Path) -> dict[str, NDArray[Any]]:
    names = ("mu", "sigma", "mu_s", "sigma_s", "stamp")
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in names if name in archive}
    except (
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        OSError,
        ValueError,
        AttributeError,
        TypeError,
    ) as error:
        raise ValueError(
            f"reference statistics: expected a whole .npz file without pickles at {path}, got one that cannot be read "
            f"({type(error).__name__}: {error}); delete it and make it anew with `{_command(path)}`"
        ) from error


def _pair(path: Path, found: dict[str, NDArray[Any]], mean: str, covariance: str) -> tuple[Tensor, Tensor]:
    if mean not in found or covariance not in found:
        raise ValueError(
            f"reference statistics: expected {mean!r} and {covariance!r} in {path}, got {sorted(found) or 'neither'}; "
            f"a batch of images alone holds no statistics, so make them with `{_command(path)}`"
        )
    m, c = (np.asarray(found[name], dtype=np.float64) for name in (mean, covariance))
    if m.ndim != 1 or c.shape != (len(m), len(m)) or not (np.isfinite(m).all() and np.isfinite(c).all()):
        raise ValueError(
            f"reference statistics: expected finite {mean!r} of (n,) and {covariance!r} of (n, n) in {path}, got "
            f"{m.shape} and {c.shape}; make the file anew with `{_command(path)}`"
        )
    return torch.from_numpy(m.copy()), torch.from_numpy(c.copy())


def _parse(path: Path, stamp: NDArray[Any]) -> Stamp:
    known = {field.name for field in fields(Stamp)}
    try:
        values = json.loads(str(stamp))
        return Stamp(**{name: value for name, value in values.items() if name in known})
    except (ValueError, AttributeError, TypeError) as error:
        raise ValueError(
            f"reference statistics: expected a stamp in JSON in {path}, got {str(stamp)[:60]!r}; make the file anew "
            f"with `{_command(path)}`"
        ) from error
