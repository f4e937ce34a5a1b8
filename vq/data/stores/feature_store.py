"""The feature store: what a frozen network computes for the patches of a set of images, with random access.

docs/tokens.md specifies the format byte by byte.
"""

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor

from vq.data.stores.store import Store
from vq.data.stores.token_manifest import StoreFormat
from vq.data.stores.token_shards import TokenStoreError
from vq.text import printable

DTYPES: Mapping[str, torch.dtype] = {
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float32": torch.float32,
}
"""The types of stored features, by name."""

_BITS = {2: torch.int16, 4: torch.int32}
"""The integer type with the same number of bytes: NumPy has no bfloat16."""


def _check_features(manifest: Mapping[str, Any]) -> None:
    if manifest["dtype"] not in DTYPES:
        raise ValueError(f"dtype is {manifest['dtype']!r}")
    if len(manifest["axes"]) != 3:
        raise ValueError(f"axes are {manifest['axes']}, and not rows, columns and channels")


FEATURES = StoreFormat(
    name="vq-features-1",
    convention="row by row; the channels of a position side by side; little-endian IEEE 754 or bfloat16",
    content="features",
    command="vq tokenize NAME --features",
    fields={"dtype": str, "network": dict, "network_sha256": str},
    check=_check_features,
)


def pack_features(features: Float[Tensor, "*shape"], dtype: str) -> bytes:
    """Rounds features to a type, to the nearest value, and packs them as little-endian numbers.

    Args:
        features: The features, of any floating-point type.
        dtype: A key of `DTYPES`.

    Raises:
        TokenStoreError: If a feature is not finite, or exceeds the range of the type.
    """
    rounded = features.cpu().to(DTYPES[dtype]).contiguous()
    if not bool(rounded.isfinite().all()):
        largest = float(features.abs().max())
        cure = (
            "use a type with a larger range (--feature-dtype)"
            if math.isfinite(largest)
            else "the network or its weights are damaged"
        )
        raise TokenStoreError(
            f"feature store: expected finite features of an absolute value of at most "
            f"{torch.finfo(DTYPES[dtype]).max:.5g}, the largest {dtype}, got {largest:.5g}; {cure}"
        )
    bits = rounded.view(_BITS[rounded.itemsize]).numpy()
    return bits.astype(bits.dtype.newbyteorder("<")).tobytes()


def unpack_features(content: Any, dtype: str) -> Float32[Tensor, "n"]:
    """Unpacks what `pack_features` has packed, and converts it to float32, which is exact.

    Args:
        content: The bytes, or an array of them.
        dtype: A key of `DTYPES`.
    """
    kind = np.dtype(f"i{DTYPES[dtype].itemsize}")
    bits = np.frombuffer(content, dtype=kind.newbyteorder("<")).astype(kind)
    return torch.from_numpy(bits).view(DTYPES[dtype]).float()


class FeatureStore(Store):
    """Reads the features of a set of images. Reading an image reads only its own bytes.

    Args:
        directory: The folder that `vq.tokenize --features` has written.

    Raises:
        TokenStoreError: If there is no manifest, it is damaged or of another format, or a shard has the wrong size.
    """

    kind: ClassVar[StoreFormat] = FEATURES

    def read(self, index: int, view: int = 0) -> Float32[Tensor, "rows columns channels"]:
        """Reads the features of a view of an image.

        Args:
            index: The number of the image.
            view: The number of the view.

        Raises:
            IndexError: If there is no such image or view.
        """
        return unpack_features(self.content(index, view), self.manifest["dtype"]).view(self.axes)

    def _width(self) -> int:
        return DTYPES[self.manifest["dtype"]].itemsize

    def _check_values(self, number: int) -> None:
        """Checks that the features of a shard are finite."""
        if not bool(unpack_features(self._maps[number], self.manifest["dtype"]).isfinite().all()):
            raise TokenStoreError(
                f"{printable(str(self.shards[number].tokens))}: expected finite features, got others; tokenize again"
            )
