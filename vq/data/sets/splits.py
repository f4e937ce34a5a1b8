"""Rules that divide a set without official splits into training and validation images."""

import hashlib

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
    number = int.from_bytes(hashlib.sha256(key.encode("utf-8", errors="surrogatepass")).digest()[:8], "big")
    return number < fraction * 2**64


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
            f"splits: expected 1 to {total - 1} validation images of {total:,}, got num_val={num_val:,}"
        )
