"""What the sets inside installed packages share: the names of splits, and where a package is."""

import importlib.util
from pathlib import Path

from vq import packages
from vq.data.base import DataError


def checked_split(place: str, split: str) -> str:
    """`split`, if it is `"train"`, `"val"` or `"all"`."""
    if split not in ("train", "val", "all"):
        raise DataError(f"{place}: expected split 'train', 'val' or 'all', got {split!r}")
    return split


def package_folder(module: str, *, needed_by: str) -> Path:
    """The folder of an installed package, found without running its code.

    Raises:
        MissingPackageError: If the package is not installed.
    """
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise packages.missing(module, needed_by=needed_by)
    return Path(spec.submodule_search_locations[0])
