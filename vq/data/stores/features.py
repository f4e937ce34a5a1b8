"""The loader of batches of stored features."""

from collections.abc import Sequence
from typing import TypedDict

import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from vq.data.stores.feature_store import FeatureStore
from vq.data.stores.stored import StoredDataset, StoredLoader
from vq.registry import DATASETS, LOADERS


class FeatureBatch(TypedDict):
    """The features of some images, with their labels and keys."""

    features: Float32[Tensor, "b rows columns channels"]
    label: Int64[Tensor, "b"]
    key: list[str]
    undecodable: list[str]  # always empty, because a store has no undecodable images


@DATASETS.register_module()
class FeatureDataset(StoredDataset[FeatureStore]):
    """The features of a set of images, as written by `vq.tokenize --features`.

    Constructing the object does not access the store.

    Args:
        root: The folder of the store.

    Raises:
        TokenStoreError: When first used, if the store is missing or damaged.
    """

    def _open(self) -> FeatureStore:
        return FeatureStore(self.root)


@LOADERS.register_module()
class FeatureLoader(StoredLoader[FeatureBatch]):
    """Batches stored features, with which a `FeatureTokenizer` that has a frozen encoder is trained without it.

    As with `ImageLoader`, the sequence of global batches is a pure function of (seed, step) for any number of ranks. In
    training, one view of each image is drawn at random; in a pass, it is the first view.

    Args:
        dataset: The features.
        batch_size: The number of images per step, over all ranks and micro-batches.
        shuffle: Whether training visits the set in a new random order in each epoch.
        balance_classes: Whether an epoch samples with replacement, with probabilities proportional to
            1 / sqrt(number of images in the class).

    Raises:
        DataError: If `batch_size` is below 1, or `balance_classes` is set without `shuffle`.
    """

    def _batch(self, rows: Sequence[int], views: Sequence[int]) -> FeatureBatch:
        store = self.dataset.store
        return {
            "features": torch.stack([store.read(r, v) for r, v in zip(rows, views, strict=True)]),
            "label": torch.tensor([store.label(r) for r in rows], dtype=torch.int64),
            "key": [store.key(r) for r in rows],
            "undecodable": [],
        }
