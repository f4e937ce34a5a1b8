"""The `.npz` file of reference statistics: written without pickles, and read as untrusted data.

Files of pytorch-fid (mu, sigma) and reference batches of ADM (mu, sigma, mu_s, sigma_s) can be read too.
"""

import hashlib
import io
import json
import math
import re
import zipfile
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64
from numpy.typing import NDArray
from torch import Tensor

from vq.files import write_atomically
from vq.metrics.stamp import MissingStatisticsError, Stamp, StatisticsError
from vq.text import printable

Moments = tuple[Float64[Tensor, "_"], Float64[Tensor, "_ _"]]
"""A mean and a covariance."""

_MAX_FEATURES = 8192  # length of a feature vector; the networks have up to 2048
_KNOWN_MEMBER = re.compile(r"(mu|sigma|mu_s|sigma_s|stamp|sha256|arr_\d+)\.npy")
_ASYMMETRY = 1e-3  # relative to the largest entry; float32 rounding is below it, a wrong matrix far above
_FORMAT: Any = np.lib.format  # it has no type annotations


def write_statistics(path: Path, *, pool: Moments, spatial: Moments | None, stamp: Stamp) -> None:
    """Writes statistics atomically, with a checksum; pytorch-fid can read the file too.

    Args:
        path: The file. Its folder is created if it does not exist.
        pool: The mean and covariance of the pooled features.
        spatial: Those of the spatial features, if there are any.
        stamp: The stamp of the statistics.
    """
    named = zip(("mu", "sigma", "mu_s", "sigma_s"), (*pool, *(spatial or ())), strict=False)
    arrays = {name: tensor.cpu().numpy() for name, tensor in named}
    text = json.dumps(stamp.as_dict())
    content = io.BytesIO()
    np.savez(content, stamp=np.array(text), sha256=np.array(_sha256(arrays, text)), **arrays)
    write_atomically(path, content.getvalue())


def read_statistics(path: Path) -> tuple[Moments, Moments | None, Stamp]:
    """Reads the moments of the pooled features, those of the spatial features if there are any, and the stamp.

    Nothing in the file is executed, and no more memory is used than such statistics need. Files of pytorch-fid and ADM
    have no stamp: they count as made with the published Inception weights, the former with its own protocol and the
    latter with the resizing of TensorFlow 1, which is that of `torch-fidelity`. The images of an ADM batch are not
    read.

    Args:
        path: The file.

    Raises:
        MissingStatisticsError: If the file does not exist. The message says which command makes it.
        StatisticsError: If the file is damaged, holds no statistics, or holds values that no set can have.
    """
    if not path.is_file():
        raise MissingStatisticsError(
            f"reference statistics: expected a file at {shown_path(path)}, got none; make it with `{command_for(path)}`"
        )
    found = _arrays(path)
    _check_sha256(path, found)
    pool = _moments(path, found, "mu", "sigma")
    has_spatial = "mu_s" in found or "sigma_s" in found
    spatial = _moments(path, found, "mu_s", "sigma_s") if has_spatial else None
    if "stamp" in found:
        return pool, spatial, _parsed(path, str(found["stamp"]))
    protocol = "torch-fidelity" if "mu_s" in found else "pytorch-fid"
    return pool, spatial, Stamp(protocol=protocol, extractor="inception")


def command_for(path: Path) -> str:
    """Returns the command that makes the statistics of a file, such as `vq fid imagenet`."""
    dataset, _, split = path.stem.rpartition("_")
    if not dataset or split not in ("train", "val"):
        return "vq fid DATASET"
    return f"vq fid {dataset}" + (" --train" if split == "train" else "")


def shown_path(path: str | Path) -> str:
    """Returns a path as printable text."""
    return printable(str(path))


def _damaged(path: Path, what: str) -> StatisticsError:
    return StatisticsError(
        f"reference statistics: expected an intact .npz file of statistics at {shown_path(path)}, got one that {what}; "
        f"delete it and make it again with `{command_for(path)}`"
    )


def _arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Reads the arrays of statistics by name; pickled objects and arrays that are too large are rejected."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = {member.filename: member for member in archive.infolist()}
            unknown = [name for name in members if not _KNOWN_MEMBER.fullmatch(name)]
            if unknown or len(members) != len(archive.infolist()):
                raise ValueError(f"unexpected or repeated members: {', '.join(unknown[:3])}")
            return {
                name.removesuffix(".npy"): _read_array(archive, member)
                for name, member in members.items()
                if not name.startswith("arr_")
            }
    except (
        Exception
    ) as error:  # zipfile, zlib, struct, numpy and ast all raise different errors for a damaged file
        raise _damaged(path, f"cannot be read ({type(error).__name__}: {printable(str(error))})") from error


def _read_array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> NDArray[Any]:
    """Reads an array after its header, so that neither its shape nor compression can make it too large."""
    with archive.open(member) as stream:
        version = _FORMAT.read_magic(stream)
        read = _FORMAT.read_array_header_1_0 if version == (1, 0) else _FORMAT.read_array_header_2_0
        shape, _, dtype = read(stream)
    if dtype.hasobject or dtype.kind not in "fU":
        raise ValueError(f"{member.filename}: expected floating-point numbers or text, got {dtype}")
    num_bytes = math.prod(shape) * dtype.itemsize
    if num_bytes > 8 * _MAX_FEATURES**2 or num_bytes > member.file_size:
        raise ValueError(f"{member.filename}: its shape needs {num_bytes} bytes, more than it can have")
    with archive.open(member) as stream:
        found: NDArray[Any] = _FORMAT.read_array(stream, allow_pickle=False)
        if stream.read(1):  # reads to the end, where zipfile compares the checksum
            raise ValueError(f"{member.filename}: has more bytes than its shape needs")
    return found


def _sha256(arrays: Mapping[str, NDArray[Any]], stamp: str) -> str:
    """Hashes the stamp and the name, dtype, shape and bytes of each array."""
    digest = hashlib.sha256(stamp.encode())
    for name, array in sorted(arrays.items()):
        digest.update(f"\n{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _check_sha256(path: Path, found: Mapping[str, NDArray[Any]]) -> None:
    """Compares a file with its checksum; files of pytorch-fid, ADM and older versions of this project have none."""
    if "sha256" not in found:
        return
    arrays = {name: array for name, array in found.items() if name not in ("sha256", "stamp")}
    if "stamp" not in found or str(found["sha256"]) != _sha256(arrays, str(found["stamp"])):
        raise _damaged(path, "does not match its own checksum")


def _moments(path: Path, found: Mapping[str, NDArray[Any]], mean: str, covariance: str) -> Moments:
    if mean not in found or covariance not in found:
        raise StatisticsError(
            f"reference statistics: expected {mean!r} and {covariance!r} in {shown_path(path)}, got "
            f"{sorted(found) or 'neither'}; a batch of images alone holds no statistics, so make them with "
            f"`{command_for(path)}`"
        )
    m, c = found[mean], found[covariance]
    if m.dtype.kind != "f" or c.dtype.kind != "f" or m.ndim != 1 or not len(m) or c.shape != (len(m), len(m)):
        raise StatisticsError(
            f"reference statistics: expected floating-point {mean!r} of (n,) and {covariance!r} of (n, n) in "
            f"{shown_path(path)}, got {m.dtype} {m.shape} and {c.dtype} {c.shape}; make the file again with "
            f"`{command_for(path)}`"
        )
    m, c = m.astype(np.float64), c.astype(np.float64)
    if not (np.isfinite(m).all() and np.isfinite(c).all()):
        raise StatisticsError(
            f"reference statistics: expected finite {mean!r} and {covariance!r} in {shown_path(path)}, got NaN or "
            f"infinity; make the file again with `{command_for(path)}`"
        )
    scale = np.abs(c).max()
    if np.abs(c - c.T).max() > _ASYMMETRY * scale or c.diagonal().min() < -_ASYMMETRY * scale:
        raise StatisticsError(
            f"reference statistics: expected a symmetric {covariance!r} with variances of at least 0 in "
            f"{shown_path(path)}, got another matrix; make the file again with `{command_for(path)}`"
        )
    return torch.from_numpy(m), torch.from_numpy(c)


def _parsed(path: Path, text: str) -> Stamp:
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
            f"reference statistics: expected a stamp in JSON in {shown_path(path)}, got {printable(text[:60])!r} "
            f"({printable(str(error))[:100]}); make the file again with `{command_for(path)}`"
        ) from error
