"""Validates one checkpoint and writes what it found: a table, `metrics.json`, pictures."""

import json
import logging
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from vq import distributed
from vq.data import Batch, ImageLoader, TokenLoader
from vq.engine.assemble import check_data, make_evaluator, make_frozen_tokenizer, make_loader, make_model
from vq.engine.callbacks import Callback
from vq.engine.evaluator import Evaluation
from vq.engine.pictures import index_picture
from vq.engine.progress import PassProgress
from vq.engine.tokenization import settings_of, tokenize
from vq.engine.trainer import Validator
from vq.ops.images import save_png
from vq.registry import ConfigError
from vq.tokenizers.checkpoint import EMA_WEIGHTS, load_weights

logger = logging.getLogger(__name__)
VISUALS = ("image", "reconstruction", "indices")


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
    """

    model: nn.Module
    loader: ImageLoader | TokenLoader
    evaluator: Validator
    autocast: bool
    visual: str
    config: Mapping[str, Any]
    is_tokenized: bool = False

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
                be tokenized.
        """
        if is_tokenized and "generator" in config:
            raise ConfigError("--tokenize: the page trains a generator; tokenize with the tokenizer's page")
        model, loader = make_model(config).to(device), make_loader(config, "val_data")
        frozen = make_frozen_tokenizer(config).to(device) if "generator" in config else None
        evaluator = make_evaluator(config, frozen_tokenizer=frozen)
        check_data(model, frozen, loader, "val_data")
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
        with progress, torch.autocast(device, torch.bfloat16, enabled=self.autocast):
            evaluation = self.evaluator.evaluate(
                self.model,
                self.loader,
                on_batch=saver,
                on_progress=progress.advance,
            )
            picture = self.evaluator.picture(self.model, self.loader)
            if self.is_tokenized:
                self._tokenize(directory / "tokens")
        if distributed.rank() == 0:
            save_png(picture, directory / "reconstructions.png")
            self._write(evaluation, weights, directory)
            show(evaluation, title=" + ".join(str(p) for p in weights))
            if callback is not None:
                callback.on_evaluation_end(step, evaluation.scores, picture)
        distributed.barrier()
        return evaluation.scores

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
        }
        partial = directory / "metrics.json.partial"
        partial.write_text(json.dumps(record, indent=2), encoding="utf-8")
        partial.replace(directory / "metrics.json")
        logger.info("wrote %s", directory)


class _Visuals:
    """Saves one PNG per image and kind of picture, for the kinds that match a pattern."""

    def __init__(self, directory: Path, pattern: str, codebook_size: int) -> None:
        self.directory, self.codebook_size = directory, codebook_size
        self.kinds = [kind for kind in VISUALS if pattern and re.fullmatch(pattern, kind)]

    def __call__(self, batch: Batch, reconstruction: Tensor, indices: Tensor) -> None:
        if not self.kinds:
            return
        for i, key in enumerate(batch["key"]):
            name = re.sub(r"[^\w.+-]", "-", key)
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
    console.print(f"{title}: {evaluation.num_images} images", highlight=False, soft_wrap=True)
    table = Table()
    table.add_column("metric")
    table.add_column("value", justify="right")
    for name, value in evaluation.scores.items():
        table.add_row(name.replace("[", r"\["), f"{value:.4f}")
    console.print(table)
    for name, stamp in evaluation.stamps.items():
        words = ", ".join(f"{k} {_short(v)}" for k, v in stamp.items() if v is not None)
        console.print(f"{name}: {words}", highlight=False, soft_wrap=True, markup=False)
    if evaluation.undecodable:
        logger.warning(
            "%d images could not be decoded and are not counted: %s",
            len(evaluation.undecodable),
            ", ".join(evaluation.undecodable[:10]),
        )


def _short(value: str | int | None) -> str:
    """A stamp's value as a table shows it: a hash by its first digits."""
    return re.sub(r"\b([0-9a-f]{12})[0-9a-f]{52}\b", r"\1", str(value))
