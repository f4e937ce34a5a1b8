"""Scores the checkpoints of a config on its validation set: a table, `metrics.json`, pictures."""

import hashlib
import itertools
import json
import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vq import distributed
from vq.config import OVER_TOKENIZER, trained_section
from vq.data import ImageLoader, TokenLoader
from vq.engine.assembly.build import (
    make_evaluator,
    make_loader,
    make_model,
    make_score_callback,
    make_tokenizer_below,
)
from vq.engine.assembly.checks import check_data
from vq.engine.assembly.class_names import check_class_names, training_class_names
from vq.engine.callbacks import Callback
from vq.engine.evaluation.base import AnyEvaluator, Evaluation
from vq.engine.evaluation.progress import PassProgress
from vq.engine.jobs.given_weights import GivenWeights
from vq.engine.jobs.score_report import VISUALS, VisualWriter, show, visual_kinds
from vq.engine.jobs.tokenization import settings_of, tokenize
from vq.engine.loop.launch import Machine
from vq.errors import ConfigError
from vq.files import read_json, sha256_of, write_atomically
from vq.ops.images import save_png
from vq.tokenizers import Tokenizer
from vq.tokenizers.checkpoint import EMA_WEIGHTS, CheckpointError, step_of
from vq.tokenizers.manifest import verify

logger = logging.getLogger(__name__)
SCORED = ("val_data", "tokenizer", *OVER_TOKENIZER, "evaluator")
"""The sections of a config that scores depend on."""


@dataclass(slots=True, kw_only=True)
class CheckpointScorer:
    """Scores any number of checkpoints of one config; its parts are built once.

    Attributes:
        config: The resolved config.
        model: Receives the weights of each checkpoint: a tokenizer, or a model over one.
        loader: Yields this rank's share of the validation set.
        evaluator: Computes the scores.
        callback: Is shown the scores and the picture of each checkpoint.
        autocast: Run the networks in bfloat16.
        visual: Regular expression that selects the pictures to write per image, from `VISUALS`.
        is_tokenized: Write the indices of the set too.
    """

    config: Mapping[str, Any]
    model: nn.Module
    loader: ImageLoader | TokenLoader
    evaluator: AnyEvaluator
    callback: Callback
    autocast: bool = False
    visual: str = ""
    is_tokenized: bool = False
    _images_sha256: str = field(default="", init=False)

    def score(
        self,
        given: GivenWeights,
        directory: Path,
        *,
        step: int = 0,
    ) -> dict[str, float]:
        """Scores weights and writes `metrics.json`, `reconstructions.png` and the pictures that `visual` selects.

        Args:
            given: Weight files; of a tensor that several hold, the last one counts.
            directory: Made if it is missing.
            step: The step that the weights were saved at, for the callback.

        Returns:
            Metric name -> value.
        """
        weights = given.load_into(self.model)
        codebook_size = getattr(self.model, "codebook_size", 0)
        visuals = VisualWriter(directory / "visual", self._visual_kinds, codebook_size, self._rgb)
        progress = PassProgress("validate", self.loader.num_samples)
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self.autocast):
            with progress:
                evaluation = self.evaluator.evaluate(
                    self.model, self.loader, on_batch=visuals, on_progress=progress.advance
                )
                picture = self.evaluator.picture(self.model, self.loader)
            if self.is_tokenized:  # before metrics.json, which marks the checkpoint as done
                self._tokenize(directory / "tokens")
        if distributed.rank() == 0:
            save_png(picture, directory / "reconstructions.png")
            show(evaluation, title=" + ".join(map(str, weights)))
            self.callback.on_evaluation_end(step, evaluation.scores, picture)
            self._write(evaluation, weights, directory)
        distributed.barrier()
        return evaluation.scores

    def score_run(
        self,
        run: Path,
        checkpoints: Iterable[Path],
        *,
        again: bool,
        is_strict: bool,
        below: GivenWeights | None = None,
    ) -> dict[str, dict[str, float]]:
        """Scores checkpoints of a run into `run/val/iter_N`, and skips those that have been scored.

        Args:
            run: `work_dirs/NAME`.
            checkpoints: Folders `iter_N`.
            again: Score those too that have scores of the same weights, images and settings.
            is_strict: Raise for damaged checkpoints after the others are scored; else only log them.
            below: Weights that are loaded before those of each checkpoint, which count where both have a tensor.

        Returns:
            The scores of each checkpoint by its name.

        Raises:
            CheckpointError: If `is_strict` and a checkpoint is damaged.
        """
        scores, problems = {}, []
        for checkpoint in checkpoints:
            if problem := _problem_of(checkpoint):
                logger.warning("%s: skipped: %s", checkpoint, problem)
                problems.append(f"{checkpoint}: {problem}")
                continue
            directory = run / "val" / checkpoint.name
            given = (below or GivenWeights()).followed_by(checkpoint)
            found = None if again else self.stored_scores(given.files(), directory)
            if found is None:
                found = self.score(given, directory, step=step_of(checkpoint))
            else:
                logger.info(
                    "%s: scored before with the same weights, images and settings; --again repeats it",
                    directory,
                )
            scores[checkpoint.name] = found
        if problems and is_strict:
            raise CheckpointError("; ".join(problems))
        return scores

    def stored_scores(self, weights: list[Path], directory: Path) -> dict[str, float] | None:
        """The scores in `directory` if they are of these weights, images and settings; else None.

        Scores of a set with undecodable images are computed again, in case the images were repaired.
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
                scores = None  # missing, from an earlier version, or damaged
        return distributed.broadcast_object(scores)

    @property
    def _device(self) -> torch.device:
        return next(itertools.chain(self.model.parameters(), self.model.buffers())).device

    @property
    def _rgb(self) -> tuple[int, int, int] | None:
        rgb: tuple[int, int, int] | None = getattr(self.evaluator, "rgb", None)
        return rgb

    @property
    def _visual_kinds(self) -> list[str]:
        return visual_kinds(self.visual, has_reconstructions=getattr(self.model, "has_image_decoder", True))

    def _settings(self, weights: list[Path]) -> dict[str, Any]:
        """What the scores depend on, as checksums."""
        config = {name: self.config[name] for name in SCORED if name in self.config}
        stamps = [metric.stamp() for metric in getattr(self.evaluator, "metrics", [])]
        if not self._images_sha256:  # reads every file's size and time: once is enough
            self._images_sha256 = _content_sha256(self.loader)
        fixed = [
            {k: v for k, v in stamp.items() if not k.startswith("num_") and k != "images"} for stamp in stamps
        ]
        return {
            "config_sha256": _sha256_of_json(config),
            "weights_sha256": [sha256_of(path) for path in weights],
            "images_sha256": self._images_sha256,
            "metrics": fixed,
            "autocast": self.autocast,
            "device": self._device.type,
            "visual": self._visual_kinds,
            "tokenized": self.is_tokenized,
        }

    def _tokenize(self, directory: Path) -> None:
        tokenizer = self.model.eval()
        if not isinstance(self.loader, ImageLoader) or not isinstance(tokenizer, Tokenizer):
            raise ConfigError("--tokenize: expected val_data with images, got tokens; leave --tokenize out")
        settings = settings_of(self.config, tokenizer, split="val", autocast=self.autocast)
        with PassProgress("tokenize", self.loader.num_samples) as progress:
            tokenize(tokenizer, self.loader, directory, settings=settings, on_progress=progress.advance)

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


@contextmanager
def scorer_of(
    config: Mapping[str, Any],
    folder: Path,
    machine: Machine,
    *,
    wandb: Mapping[str, str] | None = None,
    visual: str = "",
    is_tokenized: bool = False,
) -> Iterator[CheckpointScorer]:
    """Builds the scorer of a config, which logs to TensorBoard (and W&B) until the end of the `with`.

    Args:
        config: The resolved config.
        folder: The TensorBoard events are written there.
        machine: Device and precision.
        wandb: The names with which to log to W&B too, as for `make_callbacks`.
        visual: The pictures to write, as in `CheckpointScorer`.
        is_tokenized: Whether to write a token store, as in `CheckpointScorer`.

    Raises:
        ConfigError: If a part cannot be built, the data do not fit the model, or the options do not suit it.
    """
    _check_options(config, visual, is_tokenized)
    frozen = make_tokenizer_below(config)
    frozen = None if frozen is None else frozen.to(machine.device)
    model = make_model(config, frozen_tokenizer=frozen).to(machine.device)
    loader = make_loader(config, "val_data")
    evaluator = make_evaluator(config, frozen_tokenizer=frozen)
    _check_visual(visual, model)
    check_data(model, frozen, loader, "val_data")
    if trained_section(config) != "tokenizer" and (names := training_class_names(config)) is not None:
        check_class_names(model, names, loader.dataset.class_names)
    callback = make_score_callback(config, folder, wandb=wandb)
    max_steps = config.get("trainer", {}).get("max_steps", 0)
    callback.on_start(0, max_steps)
    try:
        yield CheckpointScorer(
            config=config,
            model=model,
            loader=loader,
            evaluator=evaluator,
            callback=callback,
            autocast=machine.autocast,
            visual=visual,
            is_tokenized=is_tokenized,
        )
    finally:
        callback.on_end(max_steps)


def _check_options(config: Mapping[str, Any], visual: str, is_tokenized: bool) -> None:
    trained = trained_section(config)
    if is_tokenized and trained != "tokenizer":
        raise ConfigError(f"--tokenize: the page trains a {trained}; tokenize with the tokenizer's page")
    if visual and trained != "tokenizer":
        raise ConfigError(
            f"--visual: the page trains a {trained}, which reconstructs no images; leave --visual out"
        )
    if visual and not visual_kinds(visual):
        raise ConfigError(f"--visual {visual!r}: expected a pattern of {', '.join(VISUALS)}, it matches none")


def _check_visual(visual: str, model: nn.Module) -> None:
    if (
        isinstance(model, Tokenizer)
        and not model.has_image_decoder
        and visual_kinds(visual) == ["reconstruction"]
    ):
        raise ConfigError(
            f"--visual {visual!r}: {type(model).__name__} has no image decoder, so there are no reconstructions; "
            f"expected a pattern that matches image or indices"
        )


def _problem_of(checkpoint: Path) -> str | None:
    """Why a checkpoint cannot be scored, the same on every rank; None if it can."""
    problem = verify(checkpoint)
    if not checkpoint.exists():
        problem = "it no longer exists: the run keeps only its newest checkpoints"
    elif problem:
        problem = f"damaged: {problem}"
    return distributed.broadcast_object(problem)


def _sha256_of_json(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _content_sha256(loader: ImageLoader | TokenLoader) -> str:
    """A checksum of what a set holds: the names of its images and, for files, their sizes and modification times."""
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
