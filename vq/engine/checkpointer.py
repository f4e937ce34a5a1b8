"""Checkpoints that are whole or absent: written aside, described by a manifest, then renamed.

`checkpoints/iter_N/` holds `model.safetensors` (and `model_ema.safetensors`), `train_state.pt`,
`config.json`, and `MANIFEST.json` with the size and SHA-256 of each. What a sample looks like and what a
step draws are functions of the seed and the step (`vq.ops.keyed`), so there is no random state to save.
"""

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from vq import __version__, distributed
from vq.engine.steps import TrainStep
from vq.registry import ENGINES
from vq.tokenizers.checkpoint import (
    EMA_WEIGHTS,
    WEIGHTS,
    CheckpointError,
    checkpoints_in,
    fsync,
    load_weights,
    read_weights,
    save_weights,
    step_of,
)

MANIFEST = "MANIFEST.json"
TRAIN_STATE = "train_state.pt"
logger = logging.getLogger(__name__)


@ENGINES.register_module()
class Checkpointer:
    """Writes, verifies and finds the checkpoints of one run.

    Args:
        directory: `work_dirs/NAME/checkpoints`.
        config: The resolved config as plain data; stored with each checkpoint.
        every: Steps between checkpoints; the last step is always saved.
        keep: How many of the newest to keep; None keeps all.

    Raises:
        ValueError: If `every` or `keep` is below 1.
    """

    def __init__(
        self, *, directory: Path, config: Mapping[str, Any], every: int, keep: int | None = None
    ) -> None:
        if every < 1 or (keep is not None and keep < 1):
            raise ValueError(f"expected every >= 1 and keep >= 1 (or None), got every={every}, keep={keep}")
        self.directory, self.config, self.every, self.keep = directory, config, every, keep

    def save(self, train_step: TrainStep, step: int) -> None:
        """Writes `iter_{step}` on rank 0; every rank waits. Older ones go only after it is whole."""
        if distributed.rank() == 0:
            self._write(train_step, step)
        distributed.barrier()

    def _write(self, train_step: TrainStep, step: int) -> None:
        final = self.directory / f"iter_{step}"
        self.directory.mkdir(parents=True, exist_ok=True)
        self._sweep()
        partial = self.directory / f"iter_{step}.partial"
        partial.mkdir()
        save_weights(train_step.model.state_dict(), partial / WEIGHTS, self.config)
        if train_step.weight_ema is not None:
            save_weights(train_step.weight_ema.average, partial / EMA_WEIGHTS, self.config)
        torch.save({"step": step, "train_step": train_step.state_dict()}, partial / TRAIN_STATE)
        (partial / "config.json").write_text(json.dumps(self.config, indent=2), encoding="utf-8")
        write_manifest(partial, step)
        if final.exists():  # a resumed run came by here again: the same step, the same bytes
            _set_aside(final)
        partial.rename(final)
        fsync(self.directory)
        for old in checkpoints_in(self.directory)[self.keep :] if self.keep else []:
            shutil.rmtree(old)

    def _sweep(self) -> None:
        """Removes what a killed process left half-written."""
        for leftover in self.directory.glob("*.partial"):
            shutil.rmtree(leftover)

    def newest_valid(self) -> Path | None:
        """The newest checkpoint whose files are all there and unchanged; damaged ones are named."""
        for checkpoint in checkpoints_in(self.directory):
            problem = verify(checkpoint)
            if problem is None:
                return checkpoint
            logger.warning("%s is damaged (%s); falling back to the one before", checkpoint, problem)
        return None

    def restore(self, train_step: TrainStep, checkpoint: Path) -> int:
        """Continues from a checkpoint.

        Returns:
            The number of optimizer steps taken.

        Raises:
            CheckpointError: If it is damaged, of another architecture, or holds no training state.
        """
        if problem := verify(checkpoint):
            raise CheckpointError(f"{checkpoint}: damaged: {problem}")
        load_weights(train_step.model, [checkpoint / WEIGHTS])
        state = torch.load(checkpoint / TRAIN_STATE, map_location="cpu", weights_only=True)
        try:
            train_step.load_state_dict(state["train_step"])
        except (KeyError, ValueError) as error:
            raise CheckpointError(f"{checkpoint}: not the state of this training step: {error}") from error
        if train_step.weight_ema is not None:
            if not (checkpoint / EMA_WEIGHTS).is_file():
                raise CheckpointError(
                    f"{checkpoint}: has no averaged weights, but train_step.weight_ema is set; "
                    f"resume with --override .train_step.weight_ema:None, or start anew with --load-model-from"
                )
            average, _ = read_weights(checkpoint / EMA_WEIGHTS)
            train_step.weight_ema.load(average, state["train_step"]["weight_ema"])
        return int(state["step"])


def write_manifest(checkpoint: Path, step: int) -> None:
    """Describes every file of a finished checkpoint, and makes all of them reach the disk."""
    files = sorted(checkpoint.iterdir())
    manifest = {
        "step": step,
        "world_size": distributed.world_size(),
        "versions": {"vq": __version__, "torch": torch.__version__},
        "files": {file.name: {"bytes": file.stat().st_size, "sha256": sha256(file)} for file in files},
    }
    (checkpoint / MANIFEST).write_text(json.dumps(manifest, indent=2), encoding="utf-8")
    for file in checkpoint.iterdir():
        fsync(file)
    fsync(checkpoint)


def verify(checkpoint: Path) -> str | None:
    """What is wrong with a checkpoint folder; None if every file is as the manifest says."""
    try:
        files = json.loads((checkpoint / MANIFEST).read_text(encoding="utf-8"))["files"]
    except FileNotFoundError:
        return f"{MANIFEST} is missing"
    except (ValueError, KeyError, OSError) as error:
        return f"{MANIFEST} cannot be read: {error}"
    for name, expected in files.items():
        file = checkpoint / name
        if not file.is_file():
            return f"{name} is missing"
        if file.stat().st_size != expected["bytes"]:
            return f"{name} has {file.stat().st_size} bytes, expected {expected['bytes']}"
        if sha256(file) != expected["sha256"]:
            return f"{name} has another checksum than when it was written"
    return None


def sha256(file: Path) -> str:
    """The checksum of a file's content, in hexadecimal."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _set_aside(checkpoint: Path) -> None:
    """Keeps a folder under a name that is never taken for a checkpoint."""
    for i in range(1, 1000):
        aside = checkpoint.with_name(f"{checkpoint.name}.replaced_{i}")
        if not aside.exists():
            os.rename(checkpoint, aside)
            return


__all__ = ["Checkpointer", "sha256", "step_of", "verify", "write_manifest"]
