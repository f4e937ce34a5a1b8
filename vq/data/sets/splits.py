"""Rules that divide a set without official splits into training and validation images."""

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from vq.data.base import DataError


def is_validation(key: str, fraction: float) -> bool:
    """Decides by the hash of an image's key whether it is kept for validation.

    The decision depends on nothing but the key, so it stays the same when images are added to the set or removed.

    Args:
        key: The key of the image, such as its path below the root.
        fraction: The expected fraction of validation images, in [0, 1].

    Example:
        >>> [is_validation(f"{i}.png", 0.5) for i in range(4)]
        [True, False, True, False]
    """
    return _number(key) < fraction * 2**64


def by_hash(keys: Sequence[str], fraction: float) -> npt.NDArray[np.bool_]:
    """Returns a mask of the validation images, which `is_validation` chooses by their keys.

    If it chooses none or all, the image with the smallest number is for validation and the others for training, or the
    one with the largest number is for training, so that neither is empty.

    Args:
        keys: The keys of all images.
        fraction: The expected fraction of validation images, in (0, 1).

    Raises:
        DataError: If there are fewer than 2 images.

    Example:
        >>> by_hash([f"{i}.png" for i in range(4)], 0.5).tolist()
        [True, False, True, False]
    """
    if len(keys) < 2:
        raise DataError(
            f"splits: expected at least 2 images, to train with some and validate with others, got {len(keys)}; add "
            f"images"
        )
    numbers = np.array([_number(key) for key in keys], dtype=np.uint64)
    limit = max(int(fraction * 2**64), int(numbers.min()) + 1)
    return numbers < min(limit, int(numbers.max()))


def _number(key: str) -> int:
    """Returns the first 64 bits of the hash of a key."""
    return int.from_bytes(hashlib.sha256(key.encode("utf-8", errors="surrogatepass")).digest()[:8], "big")


def tail(total: int, num_val: int) -> npt.NDArray[np.bool_]:
    """Returns a mask of the validation images, which are the last `num_val` of `total`.

    Raises:
        DataError: If that leaves no image for training, or none for validation.
    """
    _check(total, num_val)
    return np.arange(total) >= total - num_val


def interleaved(total: int, num_val: int) -> npt.NDArray[np.bool_]:
    """Returns a mask of the validation images, which are every floor(total / num_val)-th, `num_val` in all.

    Raises:
        DataError: If that leaves no image for training, or none for validation.
    """
    _check(total, num_val)
    mask = np.zeros(total, dtype=bool)
    mask[:: total // num_val][:num_val] = True
    return mask


def _check(total: int, num_val: int) -> None:
    if not 0 < num_val < total:
        raise DataError(
            f"splits: expected num_val from 1 to {max(total - 1, 1):,} for a set of {total:,} images, got {num_val:,}; "
            f"set num_val, or use a complete copy of the set"
        )
