"""A set of images becomes a feature store: what a frozen network of a page computes for their patches."""

import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from vq.data import Batch, ImageLoader
from vq.data.stores.feature_store import DTYPES, FEATURES, pack_features
from vq.data.stores.token_manifest import StoreFormat
from vq.engine.jobs.store_writing import StoredSet, WriteShards, write_shards, write_store
from vq.engine.jobs.views import cut_views
from vq.errors import ConfigError, UserError
from vq.networks import Teacher, TeacherEncoder
from vq.networks.sizes import image_channels_of
from vq.ops.images import to_signed_unit
from vq.registry import build, resolve
from vq.text import printable
from vq.tokenizers.fingerprint import network_fingerprint


class DiskFullError(UserError, OSError):
    """A disk without room for what is about to be written."""


def frozen_networks(config: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Finds the frozen networks of a page whose features can be stored.

    These are the encoder of a Cluster page (`tokenizer.encoder`, a `TeacherEncoder`) and the teachers of losses
    (`train_step.losses.NAME.teacher`). A network that several places name in the same way is listed once.

    Returns:
        Place -> node.
    """
    found: dict[str, Mapping[str, Any]] = {}
    for name in ("tokenizer", "train_step"):
        for place, node in _frozen_networks(config.get(name), name):
            if node not in found.values():
                found[place] = node
    return found


def _frozen_networks(value: Any, place: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if isinstance(value, list | tuple):
        for i, item in enumerate(value):
            yield from _frozen_networks(item, f"{place}[{i}]")
    if not isinstance(value, Mapping):
        return
    if "type" in value and place.endswith((".teacher", ".encoder")):
        target = resolve(value["type"], place)
        if isinstance(target, type) and issubclass(target, Teacher | TeacherEncoder):
            yield place, value
            return
    for name, child in value.items():
        yield from _frozen_networks(child, f"{place}.{name}")


def make_network(config: Mapping[str, Any], place: str = "") -> tuple[Mapping[str, Any], nn.Module]:
    """Builds the frozen network of a page; its node comes first.

    Args:
        config: The page.
        place: Which one it is, such as `train_step.losses.cosine.teacher`; it may be empty if there is only one.

    Raises:
        ConfigError: If there is none, or none at this place, or several and no place is given.
    """
    networks = frozen_networks(config)
    if not networks:
        raise ConfigError(
            "--features: expected a page with a teacher (tokenizer.encoder of the type TeacherEncoder, or "
            "train_step.losses.NAME.teacher), got none"
        )
    if not place and len(networks) == 1:
        (place,) = networks
    if place not in networks:
        given = f"no frozen network at {place}" if place else "several"
        raise ConfigError(f"--teacher: got {given}; expected one of {', '.join(networks)}")
    network: nn.Module = build(networks[place], path=place)
    return networks[place], network.eval()


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureRecorder:
    """Computes the features of views of images, in the type in which they are stored.

    Attributes:
        network: A `Teacher`, or an encoder around one, in eval mode and on its device.
        dtype: A key of `DTYPES`.
        crops: Views per image.
        size: Height and width of a view.
    """

    network: nn.Module
    dtype: str
    crops: int
    size: tuple[int, int]

    @property
    def device(self) -> torch.device:
        """Where the network is. Its weights are buffers."""
        return next(self.network.buffers()).device

    def to(self, device: str) -> None:
        """Moves the network to a device."""
        self.network.to(device)

    @property
    def kind(self) -> StoreFormat:
        """The format of the store."""
        return FEATURES

    @property
    def width(self) -> int:
        """Bytes of a stored number."""
        return DTYPES[self.dtype].itemsize

    def entries(self) -> dict[str, Any]:
        """The entries of the manifest that say how features are stored."""
        return {"dtype": self.dtype}

    def later_entries(self) -> dict[str, Any]:
        """Returns no further entries."""
        return {}

    @torch.no_grad()
    def axes(self) -> list[int]:
        """Rows, columns and channels of the features of one view.

        Raises:
            ConfigError: If the network does not take images of this size.
        """
        try:
            image = torch.zeros(1, image_channels_of(self.network), *self.size, device=self.device)
            return list(self._features(image).shape[1:])
        except ValueError as error:
            raise ConfigError(f"val_data: {error}") from error

    def __call__(self, batch: Batch) -> Float[Tensor, "b views rows columns channels"]:
        """The features of each view of a batch of images, on the CPU."""
        image = batch["image"].to(self.device, non_blocking=True)
        views = [self._features(to_signed_unit(view)) for view in cut_views(image, self.crops, self.size)]
        return torch.stack(views, dim=1).cpu()

    def pack(self, values: Float[Tensor, "b views rows columns channels"]) -> bytes:
        """The bytes of features in a shard."""
        return pack_features(values, self.dtype)

    def _features(self, image: Float[Tensor, "b _channels H W"]) -> Float[Tensor, "b rows columns channels"]:
        features: Tensor = self.network(image)
        if isinstance(self.network, TeacherEncoder):
            return rearrange(features, "b c h w -> b h w c")
        return features


def settings_of(
    config: Mapping[str, Any], node: Mapping[str, Any], network: nn.Module, *, split: str, autocast: bool
) -> dict[str, Any]:
    """What the features of the images in the page's `val_data` depend on, for the manifest of a store.

    Args:
        config: The page.
        node: The network's node.
        network: The network.
        split: `"train"` or `"val"`.
        autocast: Whether the network computes in bfloat16.
    """
    return {
        "network": node,
        "network_sha256": network_fingerprint(network),
        "dataset": config["val_data"]["dataset"],
        "transforms": config["val_data"].get("transforms", []),
        "split": split,
        "autocast": autocast,
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreSize:
    """How large a feature store is.

    Attributes:
        num_images: Images in the set.
        views: Views per image.
        axes: Rows, columns and channels.
        dtype: A key of `DTYPES`.
    """

    num_images: int
    views: int
    axes: tuple[int, int, int]
    dtype: str

    @property
    def num_bytes(self) -> int:
        """The size of the features; notes and manifest add less than a hundredth of it."""
        rows, columns, channels = self.axes
        return self.num_images * self.views * rows * columns * channels * DTYPES[self.dtype].itemsize

    def __str__(self) -> str:
        shape = " x ".join(map(str, self.axes))
        views = f" x {self.views} views" if self.views > 1 else ""
        return (
            f"{self.num_images:,} images{views} x {shape} ({self.dtype}) = "
            f"{self.num_bytes / 1e6:,.1f} MB of features"
        )

    def check_disk(self, directory: Path) -> int:
        """Checks that the disk of a folder has room for what the folder does not hold yet.

        Args:
            directory: The folder of the store, which need not exist.

        Returns:
            The number of bytes that are free.

        Raises:
            DiskFullError: If it has not.
        """
        existing = next(folder for folder in (directory, *directory.absolute().parents) if folder.exists())
        free = shutil.disk_usage(existing).free
        written = sum(file.stat().st_size for file in directory.glob("shard_*.bin"))
        if self.num_bytes - written > free:
            raise DiskFullError(
                f"{printable(str(directory))}: expected {self.num_bytes - written:,} free bytes for {self}, got "
                f"{free:,}; choose another --out, a smaller --feature-dtype or fewer --crops"
            )
        return free


def store_features(
    recorder: FeatureRecorder,
    loader: ImageLoader,
    directory: Path,
    *,
    images_per_shard: int = 1024,
    settings: Mapping[str, Any],
    on_size: Callable[[str], None] = lambda text: None,
    on_progress: Callable[[int], None] = lambda n: None,
    write: WriteShards = write_shards,
) -> StoredSet:
    """Writes the feature store of a set, as `vq.engine.jobs.tokenization.tokenize` writes a token store.

    Args:
        recorder: Computes the features.
        loader: Reads the images.
        directory: Made if it is missing.
        images_per_shard: How many images of the set a shard covers; a process holds the features of one in memory.
        settings: From `settings_of`.
        on_size: Receives the size of the store, in words, before the work begins.
        on_progress: Receives the number of images that this rank has just finished.
        write: Writes the shards that are missing; by default this process does.

    Raises:
        ConfigError: If the network does not take images of this size.
        DiskFullError: If the disk has not enough room.
        TokenStoreError: On every rank, if the folder holds other features, or those of other images; or if a feature
            exceeds the range of the type.
    """
    rows, columns, channels = recorder.axes()
    size = StoreSize(
        num_images=loader.num_samples,
        views=recorder.crops,
        axes=(rows, columns, channels),
        dtype=recorder.dtype,
    )
    free = size.check_disk(directory)
    on_size(f"{size}; {free / 1e6:,.1f} MB are free")
    return write_store(
        recorder,
        loader,
        directory,
        images_per_shard=images_per_shard,
        settings=settings,
        on_progress=on_progress,
        write=write,
    )
