"""Statistics of a set's features: from a config's data, or from a folder of images."""

import hashlib
import json
import logging
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast, get_args

import torch
from rich.console import Console
from rich.table import Table
from rich.text import Text

from vq import distributed
from vq.data import HashSplit, HuggingFaceDataset, ImageDataset, ImageFolder, ImageLoader
from vq.engine.assembly.build import Tree, section
from vq.engine.evaluation.base import names_on_all_ranks
from vq.engine.evaluation.progress import PassProgress
from vq.engine.jobs.score_report import warn_of_undecodable
from vq.errors import ConfigError
from vq.metrics import ReferenceStatistics, Stamp, StatisticsCollector
from vq.metrics.stamp import StatisticsError
from vq.networks import EfficientNetLite0, InceptionNetwork
from vq.networks.frozen.features import FeatureNetwork
from vq.networks.frozen.inception import InceptionProtocol
from vq.ops.images import check_rgb
from vq.registry import build, resolve
from vq.text import printable

logger = logging.getLogger(__name__)


def reference_section(config: Tree, *, train: bool) -> Tree:
    """The config node of the loader of the reference images: `val_data`, without shuffling.

    Args:
        config: With the sections `val_data` and, for `train`, `train_data`.
        train: Take the images of `train_data`, but with the transforms of `val_data`, which augment nothing.
    """
    node = {**section(config, "val_data"), "shuffle": False}
    if train:
        node["dataset"] = section(config, "train_data").get("dataset")
    if not isinstance(node.get("dataset"), Mapping) or not _is_a(node["type"], ImageLoader, "val_data"):
        raise ConfigError(f"val_data: expected an ImageLoader with a dataset of images, got {node['type']}")
    return node


def feature_network(config: Tree) -> FeatureNetwork:
    """The network of the first metric of the config's evaluator that has one, else the Inception of pytorch-fid.

    Raises:
        ConfigError: If it cannot be built, such as without its weights.
    """
    for i, metric in enumerate(_metrics(config)):
        if _compares_features(metric):
            found: FeatureNetwork = build(metric["network"], path=f"evaluator.metrics[{i}].network")
            return found
    return InceptionNetwork()


def feature_view(config: Tree) -> Sequence[int] | None:
    """The channels that the network of `feature_network` sees as red, green and blue (`rgb` of its metric)."""
    for metric in _metrics(config):
        if _compares_features(metric):
            found: Sequence[int] | None = metric.get("rgb")
            return found
    return None


def network_of(stamp: Stamp) -> FeatureNetwork:
    """The network that statistics with this stamp were computed with.

    Raises:
        StatisticsError: If this project does not have the network.
        FileNotFoundError: If its weights are missing.
    """
    name, protocol = stamp.extractor or "", stamp.protocol or "pytorch-fid"
    if name.split("-")[0] == "inception" and protocol in get_args(InceptionProtocol):
        return InceptionNetwork(protocol=cast(InceptionProtocol, protocol))
    if found := re.fullmatch(r"efficientnet_lite0(?:-(\d+))?", name):
        return EfficientNetLite0(size=int(found[1])) if found[1] else EfficientNetLite0()
    raise StatisticsError(
        f"reference statistics: expected the extractor inception or efficientnet_lite0, got ({stamp}); "
        "compute them again with `vq fid`"
    )


def reference_name(config: Tree, *, train: bool) -> str:
    """The name of the statistics, such as `imagenet_val`: from the config's FID metric, else from its data set.

    Example:
        >>> reference_name({"val_data": {"dataset": {"type": "vq.data.EmojiDataset"}}}, train=False)
        'emoji_val'
    """
    split = "train" if train else "val"
    for metric in _metrics(config):
        found = re.fullmatch(r"([\w-]+)_(?:val|train)", str(metric.get("reference") or ""))
        if found:
            return f"{found[1]}_{split}"
    node = section(config, "val_data")["dataset"]
    if _is_a(node["type"], HashSplit, "val_data.dataset"):
        node = node["dataset"]
    if _is_a(node["type"], ImageFolder, "val_data.dataset"):
        return f"{Path(node['root']).name}_{split}"
    if _is_a(node["type"], HuggingFaceDataset, "val_data.dataset"):
        return f"{Path(node['name']).name}_{split}"
    return f"{node['type'].rpartition('.')[2].removesuffix('Dataset').lower()}_{split}"


def _is_a(name: Any, kind: type, path: str) -> bool:
    """Whether the class that a config names at a place is of a kind."""
    found = resolve(name, path)
    return isinstance(found, type) and issubclass(found, kind)


def preprocessing(node: Tree) -> str:
    """The transforms of a loader, in words.

    Example:
        >>> preprocessing({"transforms": [{"type": "vq.data.Resize", "size": 256}]})
        'Resize(size=256)'
    """
    words = []
    for transform in node.get("transforms") or []:
        arguments = ", ".join(f"{k}={v!r}" for k, v in transform.items() if k != "type")
        words.append(f"{transform['type'].rpartition('.')[2]}({arguments})")
    return ", ".join(words) or "none"


def set_sha256(dataset: ImageDataset, words: str) -> str:
    """The SHA-256, in hexadecimal, of the keys of a set's images, in order, and of their transforms."""
    total = hashlib.sha256(words.encode())
    for i in range(len(dataset)):
        total.update(b"\n" + dataset.key(i).encode("utf-8", errors="surrogateescape"))
    return total.hexdigest()


AddFeatures = Callable[[StatisticsCollector, ImageLoader, Callable[[int], None]], list[str]]
"""Adds the features of a set's images, calls the last argument with the number of images that are done, and returns
the names of those that cannot be decoded."""


def add_features(
    collector: StatisticsCollector, loader: ImageLoader, on_progress: Callable[[int], None]
) -> list[str]:
    """Adds the features of this rank's share of the images; returns the names of those that cannot be decoded."""
    undecodable: list[str] = []
    device = collector.pool.total.device
    for batch in loader.pass_batches():
        undecodable += batch["undecodable"]
        if batch["key"]:
            collector.update(batch["image"].to(device))
            on_progress(len(batch["image"]))
    return undecodable


@torch.no_grad()
def collect(
    loader: ImageLoader,
    network: FeatureNetwork,
    *,
    device: str,
    dataset: str,
    words: str,
    rgb: Sequence[int] | None = None,
    add: AddFeatures = add_features,
) -> ReferenceStatistics:
    """Computes the statistics of a set's features in one pass over all ranks, in constant memory.

    Args:
        loader: Yields this rank's share of the set.
        network: Moved to the device.
        device: Where the network runs.
        dataset: The name of the set, for the stamp.
        words: The transforms in words, for the stamp.
        rgb: The channels of the images that the network sees as red, green and blue; None for images of 3 channels.
        add: Adds the features of all images; by default the ranks do, each those of its share.

    Raises:
        ChannelsError: If the images do not have the channels of `rgb`, or not 3 without it.
        UserError: If there are fewer than two images, or they differ in size.
        UndecodableSetError: If more images are undecodable than the loader tolerates.
    """
    check_rgb("evaluator.metrics", rgb, loader.dataset.channels)
    words = words if rgb is None else f"{words}, rgb={tuple(rgb)}"
    collector = StatisticsCollector(network=network, rgb=rgb).to(device)
    with PassProgress("features", loader.num_samples) as progress:
        undecodable = add(collector, loader, progress.advance)
    collector.sync()
    undecodable = names_on_all_ranks(undecodable)
    warn_of_undecodable(undecodable)
    found = collector.result(
        dataset=dataset, dataset_sha256=set_sha256(loader.dataset, words), preprocessing=words
    )
    return replace(found, stamp=replace(found.stamp, num_undecodable=len(undecodable)))


def folder_loader(folder: str | Path, *, batch_size: int, num_workers: int) -> ImageLoader:
    """A loader of the images in a folder, in order and untransformed, after a check that they are usable.

    Args:
        folder: With images directly in it, or in one folder per class.
        batch_size: Images per rank.
        num_workers: Prefetching workers per rank.

    Raises:
        UserError: If there are fewer than two images, or their sizes differ.
        UndecodableSetError: If none can be decoded.
    """
    loader = ImageLoader(
        dataset=ImageFolder(root=folder),
        batch_size=batch_size * distributed.world_size(),
        num_workers=num_workers,
        shuffle=False,
    )
    loader.check()
    if loader.num_samples < 2:
        raise StatisticsError(
            f"{folder}: expected at least two images for a covariance, got {loader.num_samples}; add more images"
        )
    return loader


def record(scores: Mapping[str, float], details: Mapping[str, Any], *, file: Path, title: str) -> None:
    """Appends scores to a file, as one line of JSON, and prints them as a table.

    Args:
        scores: Name -> value.
        details: What was scored; ready for JSON.
        file: Its folder is made if it is missing.
        title: The title of the table.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    row = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "scores": dict(scores),
        **details,
    }
    with file.open("a", encoding="utf-8") as opened:
        opened.write(json.dumps(row) + "\n")
        opened.flush()
        os.fsync(opened.fileno())
    console = Console(file=sys.stdout, width=None if sys.stdout.isatty() else 100)
    console.print(printable(title), highlight=False, soft_wrap=True, markup=False)
    table = Table("metric", "value")
    for name, value in scores.items():
        table.add_row(Text(printable(name)), f"{value:.4f}")
    console.print(table)
    console.print(printable(f"appended to {file}"), highlight=False, soft_wrap=True, markup=False)


def _metrics(config: Tree) -> list[Mapping[str, Any]]:
    return list((config.get("evaluator") or {}).get("metrics") or [])


def _compares_features(metric: Mapping[str, Any]) -> bool:
    network = metric.get("network")
    return isinstance(network, Mapping) and str(network.get("type")).rpartition(".")[2] in (
        "InceptionNetwork",
        "EfficientNetLite0",
    )
