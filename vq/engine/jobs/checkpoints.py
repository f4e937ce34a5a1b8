"""Validates one checkpoint and writes what it found: a table, `metrics.json`, pictures."""

import hashlib
import json
import logging
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from rich.text import Text
from torch import Tensor, nn

from vq import distributed
from vq.data import Batch, ImageLoader, TokenLoader
from vq.engine.assembly.build import make_evaluator, make_frozen_tokenizer, make_loader, make_model
from vq.engine.assembly.checks import check_data
from vq.engine.assembly.class_names import check_class_names, training_class_names
from vq.engine.evaluation.base import AnyEvaluator, Evaluation
from vq.engine.evaluation.pictures import index_picture
from vq.engine.evaluation.progress import PassProgress
from vq.engine.jobs.tokenization import settings_of, tokenize
from vq.engine.loop.callbacks import Callback
from vq.errors import ConfigError
from vq.files import read_json, sha256_of, write_atomically
from vq.ops.images import save_png
from vq.text import file_name, printable
from vq.tokenizers.checkpoint import EMA_WEIGHTS, load_weights

logger = logging.getLogger(__name__)
VISUALS = ("image", "reconstruction", "indices")
SCORED = ("val_data", "tokenizer", "generator", "evaluator")
"""The sections of a config that scores depend on."""


@dataclass(slots=True, kw_only=True)
class Validation:
    """The parts that validating any number of checkpoints of one config needs, built once.

    Attributes:
        model: Gets each checkpoint's weights: a tokenizer, or a generator.
        loader: Gives this rank's share of the validation set.
        evaluator: Scores.
        autocast: Run the networks in bfloat16.
        visual: Pattern of the pictures to save an image: any of `image`, `reconstruction`, `indices`.
        config: The page.
        is_tokenized: Write the set's indices too.
        images: A checksum of the images, once it has been needed.
    """

    model: nn.Module
    loader: ImageLoader | TokenLoader
    evaluator: AnyEvaluator
    autocast: bool
    visual: str
    config: Mapping[str, Any]
    is_tokenized: bool = False
    images: str = ""

    @classmethod
    def of(
        cls,
        config: Mapping[str, Any],
        *,
        device: str,
        autocast: bool,
        visual: str,
        is_tokenized: bool = False,
    ) -> "Validation":
        """Builds the parts from a config.

        Raises:
            ConfigError: If a part cannot be built, the images do not fit the tokenizer, or a generator is to
                be tokenized or to reconstruct images, or `visual` matches no kind of picture.
        """
        if is_tokenized and "generator" in config:
            raise ConfigError("--tokenize: the page trains a generator; tokenize with the tokenizer's page")
        if visual and "generator" in config:
            raise ConfigError("--visual: the page trains a generator, which reconstructs no images")
        if visual and not _kinds(visual):
            raise ConfigError(
                f"--visual {visual!r}: expected a pattern of {', '.join(VISUALS)}, it matches none"
            )
        model, loader = make_model(config).to(device), make_loader(config, "val_data")
        frozen = make_frozen_tokenizer(config).to(device) if "generator" in config else None
        evaluator = make_evaluator(config, frozen_tokenizer=frozen)
        check_data(model, frozen, loader, "val_data")
        if frozen is not None and (names := training_class_names(config)) is not None:
            check_class_names(model, names, loader.dataset.class_names)
        return cls(
            model=model,
            loader=loader,
            evaluator=evaluator,
            autocast=autocast,
            visual=visual,
            config=config,
            is_tokenized=is_tokenized,
        )

    def run(
        self,
        weights: list[Path],
        directory: Path,
        *,
        allow_missing: str = "",
        allow_unexpected: str = "",
        callback: Callback | None = None,
        step: int = 0,
    ) -> dict[str, float]:
        """Scores the weights and writes `metrics.json`, `reconstructions.png` and the visuals.

        Args:
            weights: Weight files, later ones over earlier ones.
            directory: Made if it is missing.
            allow_missing: See `load_weights`.
            allow_unexpected: See `load_weights`.
            callback: Is shown the scores and the picture, on rank 0.
            step: Of the weights, for the callback.

        Returns:
            Metric name -> value.
        """
        load_weights(self.model, weights, allow_missing=allow_missing, allow_unexpected=allow_unexpected)
        saver = _Visuals(directory / "visual", self.visual, getattr(self.model, "codebook_size", 0))
        device = next(self.model.parameters()).device.type
        progress = PassProgress("validate", self.loader.num_samples)
        with torch.autocast(device, torch.bfloat16, enabled=self.autocast):
            with progress:
                evaluation = self.evaluator.evaluate(
                    self.model,
                    self.loader,
                    on_batch=saver,
                    on_progress=progress.advance,
                )
                picture = self.evaluator.picture(self.model, self.loader)
            if self.is_tokenized:  # before metrics.json, which says that all is done
                self._tokenize(directory / "tokens")
        if distributed.rank() == 0:
            save_png(picture, directory / "reconstructions.png")
            show(evaluation, title=" + ".join(str(p) for p in weights))
            if callback is not None:
                callback.on_evaluation_end(step, evaluation.scores, picture)
            self._write(evaluation, weights, directory)
        distributed.barrier()
        return evaluation.scores

    def found_before(self, weights: list[Path], directory: Path) -> dict[str, float] | None:
        """The scores in `directory`, if they are of these weights, images and settings; else None.

        Scores of a set with undecodable images are taken again, in case the images were mended.
        """
        scores = None
        if distributed.rank() == 0:
            try:
                record = read_json(directory / "metrics.json")
                if (
                    record["settings"] == self._settings(weights)
                    and not record["undecodable"]
                    and (directory / "reconstructions.png").is_file()
                ):
                    scores = {str(name): float(value) for name, value in record["scores"].items()}
            except (OSError, ValueError, KeyError, TypeError, AttributeError):
                scores = None  # not there, from an earlier version, or damaged
        return distributed.broadcast_object(scores)

    def _settings(self, weights: list[Path]) -> dict[str, Any]:
        """What the scores depend on, as checksums."""
        config = {name: self.config[name] for name in SCORED if name in self.config}
        stamps = [metric.stamp() for metric in getattr(self.evaluator, "metrics", [])]
        fixed = [
            {k: v for k, v in stamp.items() if not k.startswith("num_") and k != "images"} for stamp in stamps
        ]
        if not self.images:
            self.images = _content_sha256(self.loader)
        return {
            "config_sha256": _sha256_of_json(config),
            "weights_sha256": [sha256_of(path) for path in weights],
            "images_sha256": self.images,
            "metrics": fixed,
            "autocast": self.autocast,
            "device": next(self.model.parameters()).device.type,
            "visual": _kinds(self.visual),
            "tokenized": self.is_tokenized,
        }

    def _tokenize(self, directory: Path) -> None:
        self.model.eval()
        if not isinstance(self.loader, ImageLoader):
            raise ConfigError("--tokenize: val_data holds tokens already")
        settings = settings_of(self.config, self.model, split="val", autocast=self.autocast)
        with PassProgress("tokenize", self.loader.num_samples) as progress:
            tokenize(self.model, self.loader, directory, settings=settings, on_progress=progress.advance)

    def _write(self, evaluation: Evaluation, weights: list[Path], directory: Path) -> None:
        is_averaged = any(path.name == EMA_WEIGHTS for path in weights)
        common: dict[str, str | int | None] = {
            "num_images": evaluation.num_images,
            "weights": "averaged" if is_averaged else "raw",
        }
        record = {
            "scores": evaluation.scores,
            "stamp": {name: common | evaluation.stamps.get(name, {}) for name in evaluation.scores},
            "num_images": evaluation.num_images,
            "undecodable": evaluation.undecodable,
            "weights": [str(path) for path in weights],
            "averaged_weights": is_averaged,
            "autocast": self.autocast,
            "settings": self._settings(weights),
        }
        write_atomically(directory / "metrics.json", json.dumps(record, indent=2))
        logger.info("wrote %s", directory)


def _kinds(pattern: str) -> list[str]:
    return [kind for kind in VISUALS if pattern and re.fullmatch(pattern, kind)]


def _sha256_of_json(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _content_sha256(loader: ImageLoader | TokenLoader) -> str:
    """A checksum of what a set holds: the names of its images and, for files, their sizes and times."""
    if isinstance(loader, TokenLoader):
        return _sha256_of_json(loader.dataset.store.manifest)
    dataset, root = loader.dataset, getattr(loader.dataset, "root", None)
    total = hashlib.sha256()
    for i in range(len(dataset)):
        key = dataset.key(i)
        total.update(b"\n" + key.encode(errors="surrogateescape"))
        try:
            found = os.stat(Path(root) / key) if root is not None else None
        except OSError:  # the key is not a path
            continue
        if found is not None:
            total.update(f" {found.st_size} {found.st_mtime_ns}".encode())
    return total.hexdigest()


class _Visuals:
    """Saves one PNG per image and kind of picture, for the kinds that match a pattern."""

    def __init__(self, directory: Path, pattern: str, codebook_size: int) -> None:
        self.directory, self.codebook_size = directory, codebook_size
        self.kinds = _kinds(pattern)

    def __call__(self, batch: Batch, reconstruction: Tensor, indices: Tensor) -> None:
        if not self.kinds:
            return
        for i, key in enumerate(batch["key"]):
            name = file_name(key)
            for kind in self.kinds:
                picture = self._picture(kind, batch["image"][i], reconstruction[i].cpu(), indices[i].cpu())
                save_png(picture, self.directory / f"{kind}_{name}.png")

    def _picture(self, kind: str, image: Tensor, reconstruction: Tensor, indices: Tensor) -> Tensor:
        if kind == "indices":
            _, height, width = image.shape
            return index_picture(indices, self.codebook_size, height=height, width=width)
        return image if kind == "image" else reconstruction


def show(evaluation: Evaluation, *, title: str) -> None:
    """Prints the scores as a table."""
    console = Console(file=sys.stdout, width=None if sys.stdout.isatty() else 100)
    console.print(
        f"{printable(title)}: {evaluation.num_images} images", highlight=False, soft_wrap=True, markup=False
    )
    table = Table()
    table.add_column("metric")
    table.add_column("value", justify="right")
    for name, value in evaluation.scores.items():
        table.add_row(Text(printable(name)), f"{value:.4f}")
    console.print(table)
    for name, stamp in evaluation.stamps.items():
        words = ", ".join(f"{k} {_short(v)}" for k, v in stamp.items() if v is not None)
        console.print(printable(f"{name}: {words}"), highlight=False, soft_wrap=True, markup=False)
    if evaluation.undecodable:
        logger.warning(
            "%d images could not be decoded and are not counted: %s",
            len(evaluation.undecodable),
            ", ".join(map(printable, evaluation.undecodable[:10])),
        )


def _short(value: str | int | None) -> str:
    """A stamp's value as a table shows it: a hash by its first digits."""
    return re.sub(r"\b([0-9a-f]{12})[0-9a-f]{52}\b", r"\1", str(value))
