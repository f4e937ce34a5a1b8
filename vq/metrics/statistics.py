"""Statistics of a reference set's features: how they are made, kept in a file with a stamp, and compared."""

import hashlib
import io
import json
import math
import re
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float64, Shaped, UInt8
from numpy.typing import NDArray
from torch import Tensor, nn

from vq import distributed, pretrained
from vq.errors import UserError
from vq.files import write_atomically
from vq.networks.frozen.features import FeatureNetwork
from vq.ops.frechet import frechet_distance, moments
from vq.text import printable

_MOST_FEATURES = 8192  # numbers of a feature; the networks have up to 2048
_KNOWN_MEMBER = re.compile(r"(mu|sigma|mu_s|sigma_s|stamp|sha256|arr_\d+)\.npy")
_ASYMMETRY = 1e-3  # of a float32 covariance's largest number, by rounding; a wrong matrix is far above
_BINDING = ("protocol", "extractor", "extractor_sha256")


class StatisticsError(UserError, ValueError):
    """Reference statistics that cannot be used: damaged, of another kind, or of too few images."""


class MissingStatisticsError(UserError, FileNotFoundError):
    """There are no reference statistics in the place where they were expected."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stamp:
    """What statistics were made of and how; None is unknown.

    Attributes:
        protocol: Whose rules of resizing, such as `pytorch-fid`.
        extractor: The feature network.
        extractor_sha256: Of its weights, in hex.
        resize: The protocol's kernel in words.
        num_images: How many images.
        num_undecodable: How many images of the set were left out, because they are broken.
        dataset: The set's name.
        dataset_sha256: Of the keys of its images and of what was done to them, in hex.
        preprocessing: What was done to the images before the network, in words.
    """

    protocol: str | None = None
    extractor: str | None = None
    extractor_sha256: str | None = None
    resize: str | None = None
    num_images: int | None = None
    num_undecodable: int | None = None
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
        return ", ".join(f"{name} {printable(str(value))}" for name, value in known.items())


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
            StatisticsError: If they were not computed.
        """
        if kind == "pool":
            return self.mean, self.covariance
        if self.spatial_mean is None or self.spatial_covariance is None:
            raise StatisticsError(
                f"ReferenceStatistics: expected spatial features (mu_s, sigma_s) for sFID, got none in ({self.stamp}); "
                "make the file anew with `vq fid`, or leave sFID out"
            )
        return self.spatial_mean, self.spatial_covariance

    def save(self, path: str | Path) -> None:
        """Writes a `.npz` without pickles, whole or not at all, with a checksum; pytorch-fid can read it too.

        Args:
            path: Its folder is made if it is missing.
        """
        arrays = {"mu": self.mean.cpu().numpy(), "sigma": self.covariance.cpu().numpy()}
        if self.spatial_mean is not None and self.spatial_covariance is not None:
            arrays |= {
                "mu_s": self.spatial_mean.cpu().numpy(),
                "sigma_s": self.spatial_covariance.cpu().numpy(),
            }
        stamp = json.dumps(self.stamp.as_dict())
        content = io.BytesIO()
        np.savez(
            content,
            allow_pickle=False,
            stamp=np.array(stamp),
            sha256=np.array(_sha256(arrays, stamp)),
            **arrays,
        )
        write_atomically(Path(path), content.getvalue())

    @classmethod
    def load(cls, path: str | Path) -> "ReferenceStatistics":
        """Reads such a file, or pytorch-fid's (mu, sigma), or an ADM reference batch (mu, sigma, mu_s, sigma_s).

        The last two have no stamp: they count as made with the published Inception weights, pytorch-fid's by
        its own protocol and ADM's by TensorFlow's resizing, that of `torch-fidelity`. The images in an ADM batch
        are not read.

        A file is data: nothing in it is executed, and no more memory is taken than such statistics need.

        Raises:
            MissingStatisticsError: If there is no such file; the message says which command makes it.
            StatisticsError: If it is damaged, holds no statistics, or ones that cannot be those of a set.
        """
        path = Path(path)
        if not path.is_file():
            raise MissingStatisticsError(
                f"reference statistics: expected a file at {_shown(path)}, got none; make it with `{_command(path)}`"
            )
        found = _arrays(path)
        _check_sha256(path, found)
        mean, covariance = _pair(path, found, "mu", "sigma")
        spatial: tuple[Tensor | None, Tensor | None] = (None, None)
        if "mu_s" in found or "sigma_s" in found:
            spatial = _pair(path, found, "mu_s", "sigma_s")
        if "stamp" in found:
            stamp = _parse(path, str(found["stamp"]))
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
            StatisticsError: With both stamps, or if a feature has another length than the network's.
        """
        wanted = Stamp.of(network)
        if not self.stamp.agrees(wanted):
            raise StatisticsError(
                f"reference statistics: expected ({wanted}) as the metric has it, got ({self.stamp}) in "
                f"{_shown(path)}; choose the protocol and network of the file, or make it anew with "
                f"`{_command(Path(path))}`"
            )
        for kind, mean in (("pool", self.mean), ("spatial", self.spatial_mean)):
            size = network.sizes.get(kind)
            if mean is not None and size is not None and len(mean) != size:
                raise StatisticsError(
                    f"reference statistics: expected {kind} features of {size} numbers, as {network.name} makes them, "
                    f"got {len(mean)} in {_shown(path)}; make the file anew with `{_command(Path(path))}`"
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
            raise StatisticsError(
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
        raise StatisticsError(
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
        return "vq fid DATASET"
    return f"vq fid {dataset}" + (" --train" if split == "train" else "")


def _shown(path: str | Path) -> str:
    return printable(str(path))


def _damaged(path: Path, what: str) -> StatisticsError:
    return StatisticsError(
        f"reference statistics: expected a whole .npz file of statistics at {_shown(path)}, got one that {what}; "
        f"delete it and make it anew with `{_command(path)}`"
    )


def _arrays(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays that statistics consist of, by name; pickled objects and arrays that are too large are refused."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = {member.filename: member for member in archive.infolist()}
            strange = [name for name in members if not _KNOWN_MEMBER.fullmatch(name)]
            if strange or len(members) != len(archive.infolist()):
                raise ValueError(f"unexpected or repeated members: {', '.join(strange[:3])}")
            return {
                name.removesuffix(".npy"): _read_array(archive, member)
                for name, member in members.items()
                if not name.startswith("arr_")
            }
    except Exception as error:  # zipfile, zlib, struct, numpy and ast each raise their own for a damaged file
        raise _damaged(path, f"cannot be read ({type(error).__name__}: {printable(str(error))})") from error


def _read_array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> NDArray[Any]:
    """One array: its header first, so that neither its shape nor a compression makes it larger than it may be."""
    with archive.open(member) as stream:
        version = np.lib.format.read_magic(stream)  # type: ignore[no-untyped-call]
        read = (
            np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        )
        shape, _, dtype = read(stream)  # type: ignore[no-untyped-call]
    if dtype.hasobject or dtype.kind not in "fU":
        raise ValueError(f"{member.filename}: expected floating-point numbers or a text, got {dtype}")
    num_bytes = math.prod(shape) * dtype.itemsize
    if num_bytes > 8 * _MOST_FEATURES**2 or num_bytes > member.file_size:
        raise ValueError(f"{member.filename}: {num_bytes} bytes are more than it can hold")
    with archive.open(member) as stream:
        found: NDArray[Any] = np.lib.format.read_array(stream, allow_pickle=False)  # type: ignore[no-untyped-call]
        if stream.read(1):  # up to the end, where zipfile compares the checksum
            raise ValueError(f"{member.filename}: has more bytes than its shape says")
    return found


def _sha256(arrays: Mapping[str, NDArray[Any]], stamp: str) -> str:
    """Of the stamp and of each array's name, type, shape and bytes."""
    digest = hashlib.sha256(stamp.encode())
    for name, array in sorted(arrays.items()):
        digest.update(f"\n{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _check_sha256(path: Path, found: Mapping[str, NDArray[Any]]) -> None:
    """Compares a file with its own checksum; files of pytorch-fid, of ADM and of older versions have none."""
    if "sha256" not in found:
        return
    arrays = {name: array for name, array in found.items() if name not in ("sha256", "stamp")}
    if "stamp" not in found or str(found["sha256"]) != _sha256(arrays, str(found["stamp"])):
        raise _damaged(path, "does not have its own checksum")


def _pair(path: Path, found: Mapping[str, NDArray[Any]], mean: str, covariance: str) -> tuple[Tensor, Tensor]:
    if mean not in found or covariance not in found:
        raise StatisticsError(
            f"reference statistics: expected {mean!r} and {covariance!r} in {_shown(path)}, got "
            f"{sorted(found) or 'neither'}; a batch of images alone holds no statistics, so make them with "
            f"`{_command(path)}`"
        )
    m, c = found[mean], found[covariance]
    if m.dtype.kind != "f" or c.dtype.kind != "f" or m.ndim != 1 or not len(m) or c.shape != (len(m), len(m)):
        raise StatisticsError(
            f"reference statistics: expected floating-point {mean!r} of (n,) and {covariance!r} of (n, n) in "
            f"{_shown(path)}, got {m.dtype} {m.shape} and {c.dtype} {c.shape}; make the file anew with "
            f"`{_command(path)}`"
        )
    m, c = m.astype(np.float64), c.astype(np.float64)
    if not (np.isfinite(m).all() and np.isfinite(c).all()):
        raise StatisticsError(
            f"reference statistics: expected finite {mean!r} and {covariance!r} in {_shown(path)}, got NaN or "
            f"infinity; make the file anew with `{_command(path)}`"
        )
    scale = np.abs(c).max()
    if np.abs(c - c.T).max() > _ASYMMETRY * scale or c.diagonal().min() < -_ASYMMETRY * scale:
        raise StatisticsError(
            f"reference statistics: expected a symmetric {covariance!r} with variances of at least 0 in "
            f"{_shown(path)}, got another matrix; make the file anew with `{_command(path)}`"
        )
    return torch.from_numpy(m), torch.from_numpy(c)


def _parse(path: Path, text: str) -> Stamp:
    kinds = {field.name: int if field.name.startswith("num_") else str for field in fields(Stamp)}
    try:
        values = json.loads(text)
        known = {name: value for name, value in values.items() if name in kinds}
        for name, value in known.items():
            if value is not None and type(value) is not kinds[name]:
                raise TypeError(f"{name} is {value!r}")
        if (known.get("num_images") or 2) < 2:
            raise ValueError(f"num_images is {known['num_images']}")
        return Stamp(**known)
    except (ValueError, AttributeError, TypeError, RecursionError) as error:
        raise StatisticsError(
            f"reference statistics: expected a stamp in JSON in {_shown(path)}, got {printable(text[:60])!r} "
            f"({printable(str(error))[:100]}); make the file anew with `{_command(path)}`"
        ) from error
