"""Statistics of a set's features: from a config's data, or from a folder of images."""

import hashlib
import json
import logging
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast, get_args

import torch
from rich.console import Console
from rich.table import Table
from rich.text import Text

from vq import distributed
from vq.data import ImageDataset, ImageFolder, ImageLoader
from vq.engine.assembly.build import Tree, section
from vq.engine.evaluation.progress import PassProgress
from vq.errors import ConfigError
from vq.metrics import ReferenceStatistics, Stamp, StatisticsCollector
from vq.metrics.stamp import StatisticsError
from vq.networks import EfficientNetLite0, InceptionNetwork
from vq.networks.frozen.features import FeatureNetwork
from vq.networks.frozen.inception import InceptionProtocol
from vq.registry import build, resolve
from vq.text import printable

logger = logging.getLogger(__name__)


def reference_section(config: Tree, *, train: bool) -> Tree:
    """The loader of a config's reference images, as a config node: `val_data`, in order.

    Args:
        config: With the sections `val_data` and, for `train`, `train_data`.
        train: Take the images of `train_data`, still cut as `val_data` cuts them: without augmentation.
    """
    node = {**section(config, "val_data"), "shuffle": False}
    if train:
        node["dataset"] = section(config, "train_data").get("dataset")
    if not isinstance(node.get("dataset"), Mapping) or not _is_a(node["type"], ImageLoader, "val_data"):
        raise ConfigError(f"val_data: expected an ImageLoader with a dataset of images, got {node['type']}")
    return node


def feature_network(config: Tree) -> FeatureNetwork:
    """The network of the first metric in the config's evaluator that has one, else the Inception of pytorch-fid.

    Raises:
        ConfigError: If it cannot be built, such as without its weights.
    """
    for i, metric in enumerate(_metrics(config)):
        if _compares_features(metric):
            found: FeatureNetwork = build(metric["network"], path=f"evaluator.metrics[{i}].network")
            return found
    return InceptionNetwork()


def network_of(stamp: Stamp) -> FeatureNetwork:
    """The network that statistics with this stamp were made with.

    Raises:
        StatisticsError: If it is none of this project's.
        FileNotFoundError: If its weights are not at hand.
    """
    name, protocol = stamp.extractor or "", stamp.protocol or "pytorch-fid"
    if name.split("-")[0] == "inception" and protocol in get_args(InceptionProtocol):
        return InceptionNetwork(protocol=cast(InceptionProtocol, protocol))
    if found := re.fullmatch(r"efficientnet_lite0(?:-(\d+))?", name):
        return EfficientNetLite0(size=int(found[1])) if found[1] else EfficientNetLite0()
    raise StatisticsError(
        f"reference statistics: expected the extractor inception or efficientnet_lite0, got ({stamp}); "
        "make them anew with `vq fid`"
    )


def reference_name(config: Tree, *, train: bool) -> str:
    """What the statistics are called: `imagenet_val`, by the config's FID metric, else by its data set.

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
    if _is_a(node["type"], ImageFolder, "val_data.dataset"):
        return f"{Path(node['root']).name}_{split}"
    return f"{node['type'].rpartition('.')[2].removesuffix('Dataset').lower()}_{split}"


def _is_a(name: Any, kind: type, path: str) -> bool:
    """Whether the class that a config names at a place is of a kind."""
    found = resolve(name, path)
    return isinstance(found, type) and issubclass(found, kind)


def preprocessing(node: Tree) -> str:
    """What a loader's transforms do, in words.

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
    """The sha256 of the keys of a set's images, in order, and of what was done to them, in hex."""
    total = hashlib.sha256(words.encode())
    for i in range(len(dataset)):
        total.update(b"\n" + dataset.key(i).encode("utf-8", errors="surrogateescape"))
    return total.hexdigest()


@torch.no_grad()
def collect(
    loader: ImageLoader, network: FeatureNetwork, *, device: str, dataset: str, words: str
) -> ReferenceStatistics:
    """One pass over all ranks' shares of a set: the statistics of its features, in memory that does not grow.

    Args:
        loader: Gives this rank's share.
        network: Moved to the device.
        device: Where the network runs.
        dataset: The set's name, for the stamp.
        words: What the transforms do, for the stamp.

    Raises:
        UserError: If there were fewer than two images, or they differ in size.
        UndecodableSetError: If more images are broken than the loader puts up with.
    """
    collector = StatisticsCollector(network=network).to(device)
    broken: list[str] = []
    with PassProgress("features", loader.num_samples) as progress:
        for batch in loader.pass_batches():
            broken += batch["undecodable"]
            if not batch["key"]:
                continue
            collector.update(batch["image"].to(device))
            progress.advance(len(batch["image"]))
    collector.sync()
    everywhere = sorted({name for names in distributed.gather_objects(broken) for name in names})
    if everywhere:
        logger.warning(
            "%d images could not be decoded and are not counted: %s",
            len(everywhere),
            ", ".join(map(printable, everywhere[:10])),
        )
    found = collector.result(
        dataset=dataset, dataset_sha256=set_sha256(loader.dataset, words), preprocessing=words
    )
    return replace(found, stamp=replace(found.stamp, num_undecodable=len(everywhere)))


def folder_loader(folder: str | Path, *, batch_size: int, num_workers: int) -> ImageLoader:
    """The images of a folder as they are, in order; checked: there, decodable, of one size.

    Args:
        folder: With images directly in it, or in one folder a class.
        batch_size: Images a rank.
        num_workers: Processes a rank that read ahead.

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
    """Appends scores and what they are of to a file, a line of JSON a call, and prints them as a table.

    Args:
        scores: By name.
        details: Ready for JSON.
        file: Its folder is made if it is missing.
        title: Above the table.
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
