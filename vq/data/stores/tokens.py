"""The loader of batches of indices from a token store."""

from collections.abc import Sequence
from typing import TypedDict

import torch
from jaxtyping import Int64
from torch import Tensor

from vq.data.stores.stored import StoredDataset, StoredLoader
from vq.data.stores.token_store import TokenStore
from vq.registry import DATASETS, LOADERS


class TokenBatch(TypedDict):
    """The indices of some images, with their labels and keys."""

    indices: Int64[Tensor, "b *axes"]
    label: Int64[Tensor, "b"]
    key: list[str]
    undecodable: list[str]  # always empty, because a store has no undecodable images


@DATASETS.register_module()
class TokenDataset(StoredDataset[TokenStore]):
    """The indices of a set of images, as written by `vq.tokenize`.

    Constructing the object does not access the store.

    Args:
        root: The folder of the store.

    Raises:
        TokenStoreError: When first used, if the store is missing or damaged.
    """

    def _open(self) -> TokenStore:
        return TokenStore(self.root)


@LOADERS.register_module()
class TokenLoader(StoredLoader[TokenBatch]):
    """Batches the indices of a store, for training and for exact passes over the store.

    As with `ImageLoader`, the sequence of global batches is a pure function of (seed, step) for any number of ranks. In
    training, one view of each image is drawn at random; in a pass, it is the first view.

    Args:
        dataset: The indices.
        batch_size: The number of images per step, over all ranks and micro-batches.
        shuffle: Whether training visits the set in a new random order in each epoch.
        balance_classes: Whether an epoch samples with replacement, with probabilities proportional to
            1 / sqrt(number of images in the class).

    Raises:
        DataError: If `batch_size` is below 1, or `balance_classes` is set without `shuffle`.
    """

    def _batch(self, rows: Sequence[int], views: Sequence[int]) -> TokenBatch:
        store = self.dataset.store
        return {
            "indices": torch.stack([store.read(r, v) for r, v in zip(rows, views, strict=True)]),
            "label": torch.tensor([store.label(r) for r in rows], dtype=torch.int64),
            "key": [store.key(r) for r in rows],
            "undecodable": [],
        }
