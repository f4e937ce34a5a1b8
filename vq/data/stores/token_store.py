"""The token store: the indices of a set of images on disk, a few bytes each, with random access.

docs/tokens.md specifies the format byte by byte.
"""

from typing import ClassVar

from jaxtyping import Int64
from torch import Tensor

from vq.data.stores.store import Store
from vq.data.stores.token_manifest import TOKENS, StoreFormat
from vq.data.stores.token_shards import TokenStoreError, bytes_per_index, unpack
from vq.text import printable

__all__ = ["TokenStore", "TokenStoreError", "bytes_per_index"]


class TokenStore(Store):
    """Reads the indices of a set of images. Reading an image reads only its own bytes.

    Args:
        directory: The folder that `vq.tokenize` has written.

    Raises:
        TokenStoreError: If there is no manifest, it is damaged or of another format, or a shard has the wrong size.
    """

    kind: ClassVar[StoreFormat] = TOKENS

    def read(self, index: int, view: int = 0) -> Int64[Tensor, "*axes"]:
        """Reads the indices of a view of an image.

        Args:
            index: The number of the image.
            view: The number of the view.

        Raises:
            IndexError: If there is no such image or view.
        """
        return unpack(self.content(index, view), self.width).view(self.axes)

    def _width(self) -> int:
        return int(self.manifest["bytes_per_index"])

    def _check_values(self, number: int) -> None:
        """Checks that indices are in the tokenizer's ranges, of which there is one for each index of a position."""
        indices = unpack(self._maps[number], self.width)
        ranges = self.manifest.get("index_ranges", [[0, self.manifest["vocabulary_size"]]])
        for depth, own in enumerate(indices.view(-1, len(ranges)).unbind(1)):
            (start, stop), (lowest, highest) = ranges[depth], (int(x) for x in own.aminmax())
            if lowest < start or highest >= stop:
                raise TokenStoreError(
                    f"{printable(str(self.shards[number].tokens))}: expected indices below {stop}"
                    f"{f' and from {start} on' if start else ''}, got {lowest if lowest < start else highest}; "
                    f"tokenize again"
                )
