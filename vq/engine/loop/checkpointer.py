"""Checkpoints that are whole or absent: written under another name, described by a manifest, then renamed.

`checkpoints/iter_N/` holds `model.safetensors` (and `model_ema.safetensors`), `train_state.pt`, `config.json`,
`arguments.json`, and `MANIFEST.json` with the size and SHA-256 of each. What a sample looks like and what a step draws
are functions of the seed and the step (`vq.ops.keyed`), so there is no random state to save.
"""

import json
import logging
import math
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from vq import distributed
from vq.engine.loop.checkpoint_files import TRAIN_STATE, Content, estimated_bytes
from vq.engine.loop.checkpoint_folder import CheckpointFolder
from vq.engine.loop.resuming import accepted_changes
from vq.engine.steps.base import TrainStep
from vq.errors import UserError
from vq.files import read_json, why, write_atomically
from vq.registry import ENGINES
from vq.text import printable
from vq.tokenizers.checkpoint import (
    EMA_WEIGHTS,
    WEIGHTS,
    CheckpointError,
    checkpoints_in,
    load_weights,
    read_weights,
    step_of,
)
from vq.tokenizers.manifest import verify

SCORES = "validation.json"
"""The scores of the validation, added to a finished checkpoint; the manifest does not name it."""
logger = logging.getLogger(__name__)


class NonFiniteLossError(UserError, RuntimeError):
    """A loss, a gradient or a weight became NaN or infinite; the message says when, which, and what to go back to."""


class SaveError(UserError, RuntimeError):
    """A checkpoint could not be written; the message says why, and which is the last good one."""


@ENGINES.register_module()
class Checkpointer:
    """Writes, verifies and restores the checkpoints of one run.

    The folders `iter_N` are those of one trajectory: when a run continues from an earlier checkpoint, the later ones
    are renamed to `iter_N.replaced_1`, a name that nothing takes for a checkpoint. After a new checkpoint is whole,
    the oldest are removed until `keep` remain; damaged ones do not count, and what this class did not write is left
    alone. With `keep=1` the previous one is removed only once the step after the newest, or its validation, was finite.

    Args:
        directory: `work_dirs/NAME/checkpoints`.
        config: The resolved config as plain data; stored with each checkpoint, as are `arguments`.
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
        self.arguments: dict[str, Any] = {}
        self.origin: Path | None = None
        self._folder = CheckpointFolder(directory)

    def begin(self, train_step: TrainStep, start_step: int, max_steps: int) -> None:
        """Makes the folder ready for a training that starts at `start_step`; every rank must call it.

        Checkpoints that this training does not descend from are set aside: those later than the restored one, or all
        of them if the restored one is in another folder.

        Raises:
            SaveError: If the folder cannot be written, or the disk has no space for the checkpoints to come.
        """
        self._on_first_rank(lambda: self._begin(train_step, start_step, max_steps))

    def _begin(self, train_step: TrainStep, start_step: int, max_steps: int) -> None:
        own = self.directory / f"iter_{start_step}"
        descends = self.origin is not None and self.origin.resolve() == own.resolve()
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.directory):
                pass
            self._folder.set_newer_aside(start_step if descends else -1)
            self._folder.sweep()
        except OSError as error:
            raise SaveError(f"{self.directory}: cannot be written: {error.strerror or error}") from error
        self._check_space(estimated_bytes(train_step), math.ceil((max_steps - start_step) / self.every))

    def _check_space(self, size: int, num_saves: int) -> None:
        """Raises if the disk has no space for the checkpoints that will exist side by side, each of `size` bytes."""
        num_new = num_saves
        if self.keep is not None:
            num_new = min(num_saves, max(0, max(self.keep, 2) + 1 - self._folder.num_checkpoints()))
        free = shutil.disk_usage(self.directory).free
        if (num_new and size * min(num_new, 2) > free) or (self.keep and size * num_new > free):
            raise SaveError(
                f"{self.directory}: the disk has {_readable(free)} left, but {num_new} checkpoints of about "
                f"{_readable(size)} are to be written; free some space, or lower checkpointer.keep"
            )
        if size * num_new > free:
            logger.warning(
                "%s: the disk has %s left, not enough for all %d checkpoints of about %s; set checkpointer.keep",
                self.directory, _readable(free), num_new, _readable(size),
            )  # fmt: skip

    def save(self, train_step: TrainStep, step: int) -> None:
        """Writes `iter_{step}` on rank 0; every rank waits. Older ones are removed only after it is whole.

        Raises:
            NonFiniteLossError: On all ranks, if a weight, an average or an optimizer's state is NaN or infinite;
                nothing is written then.
            SaveError: On all ranks, if it could not be written; no part of it remains.
        """
        self._on_first_rank(lambda: self._save(train_step, step))

    def save_alone(self, train_step: TrainStep, step: int) -> None:
        """`save` without waiting for other ranks, which may have failed already; does nothing on ranks above 0."""
        if distributed.rank() == 0:
            self._save(train_step, step)

    def _save(self, train_step: TrainStep, step: int) -> None:
        content = Content.of(train_step, step)
        if broken := content.not_finite():
            raise NonFiniteLossError(
                f"step {step}: the {broken} is not finite; training stopped and nothing was saved. "
                f"The last good checkpoint is {self.newest_valid() or 'not yet written'}. "
                f"Lower train_step.optimizer.lr or set train_step.max_gradient_norm"
            )
        partial = self._folder.partial(step)
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            self._folder.sweep()
            self._folder.set_newer_aside(step)
            content.write(partial, config=self.config, arguments=self.arguments)
            self._folder.publish(partial)
        except (
            Exception
        ) as error:  # torch and safetensors raise exceptions of their own when the disk is full
            shutil.rmtree(partial, ignore_errors=True)
            raise SaveError(
                f"{partial.with_suffix('')}: could not be saved: {why(error)}. The last good checkpoint is "
                f"{self.newest_valid() or 'not yet written'}"
            ) from error
        if self.keep is not None:
            self._folder.prune(step, max(self.keep, 2))

    def confirm(self, step: int) -> None:
        """Reports that training or validation was finite at `step`, so that older checkpoints are not needed.

        Args:
            step: A step after the one that was saved; or the same one after its validation.
        """
        if distributed.rank() == 0 and self.keep == 1:
            self._folder.prune(step, 1)

    def _on_first_rank(self, work: Callable[[], None]) -> None:
        """Does work on rank 0; what it raises is raised on every rank."""
        problem: Exception | None = None
        if distributed.rank() == 0:
            try:
                work()
            except Exception as error:
                problem = error
        sent = distributed.broadcast_object(
            None if problem is None else (type(problem).__name__, str(problem))
        )
        if problem is not None:
            raise problem
        if sent is not None:
            kind, message = sent
            raise {"NonFiniteLossError": NonFiniteLossError}.get(kind, SaveError)(message)

    def newest_valid(self) -> Path | None:
        """The newest checkpoint whose files are all there and unchanged; damaged ones are logged."""
        return self._folder.newest_valid()

    def to_resume(self, *, may_be_none: bool = False) -> Path | None:
        """The newest valid checkpoint, the same on all ranks; None if no checkpoint has been written.

        Args:
            may_be_none: Return None also if all are damaged.

        Raises:
            CheckpointError: If there are checkpoints and all are damaged.
        """
        found, problems = None, list[str]()
        if distributed.rank() == 0:
            found, problems = self._folder.newest_or_problems()
        found, problems = distributed.broadcast_object((found, problems))
        if problems and not may_be_none:
            raise CheckpointError(
                f"{self.directory}: every checkpoint is damaged: {', '.join(problems)}; remove or rename them to start "
                f"at step 0, or continue from another run's checkpoint with --load-from DIR"
            )
        return found

    def restore(self, train_step: TrainStep, checkpoint: Path) -> int:
        """Continues from a checkpoint; differences from its config are logged, or refused before anything is loaded.

        Returns:
            The number of optimizer steps taken.

        Raises:
            ResumeError: If the config differs in what must not change (`vq.engine.loop.resuming`).
            CheckpointError: If it does not exist, is damaged, of another architecture, or holds no training state.
        """
        self._check_exists(checkpoint)
        if problem := verify(checkpoint):
            raise CheckpointError(f"{checkpoint}: damaged: {problem}")
        for change in accepted_changes(checkpoint, self.config, self.arguments):
            logger.info("changed since the checkpoint, and applied: %s", change)
        if train_step.weight_ema is not None and not (checkpoint / EMA_WEIGHTS).is_file():
            raise CheckpointError(
                f"{checkpoint}: has no averaged weights, but train_step.weight_ema is set; "
                f"resume with --override .train_step.weight_ema:None, or start anew with --load-model-from"
            )
        load_weights(train_step.model, [checkpoint / WEIGHTS])
        step = _load_state(train_step, checkpoint)
        _check_step(checkpoint, step)
        self.origin = checkpoint
        return step

    def _check_exists(self, checkpoint: Path) -> None:
        if (
            checkpoint.is_dir()
            and checkpoint.name != "checkpoints"
            and not (checkpoint / "checkpoints").is_dir()
        ):
            return
        near = [self.directory, checkpoint / "checkpoints", checkpoint, checkpoint.parent]
        there = {str(p): None for folder in near for p in reversed(checkpoints_in(folder))}
        if not there:  # none near the path: name those of the other runs
            runs = sorted(self.directory.parent.parent.glob("*/checkpoints"))
            there = {str(p): None for folder in runs[:4] for p in reversed(checkpoints_in(folder)[:4])}
        raise CheckpointError(
            f"{printable(str(checkpoint))}: no such checkpoint; there are: {', '.join(there) or 'none'}. "
            f"--load-from takes the path of a checkpoint folder"
        )

    def write_scores(self, step: int, scores: Mapping[str, float]) -> None:
        """Stores the scores of a checkpoint: a run that is killed before this validates again when it is resumed."""
        folder = self.directory / f"iter_{step}"
        if distributed.rank() == 0 and folder.is_dir():
            try:
                write_atomically(folder / SCORES, json.dumps(dict(scores), indent=2))
            except OSError as error:
                logger.warning("%s: could not be written: %s", folder / SCORES, why(error))

    def scores(self) -> dict[str, float] | None:
        """The stored scores of the checkpoint that was restored; None if it was not validated."""
        found = None
        if distributed.rank() == 0 and self.origin is not None:
            try:
                content = read_json(self.origin / SCORES)
                found = {str(name): float(value) for name, value in content.items()}
            except (OSError, ValueError, AttributeError, TypeError):
                found = None
        return distributed.broadcast_object(found)


def _load_state(train_step: TrainStep, checkpoint: Path) -> int:
    """Loads what the next step depends on besides the weights; returns the number of steps taken."""
    try:
        state = torch.load(checkpoint / TRAIN_STATE, map_location="cpu", weights_only=True)
        step = int(state["step"])
        train_step.load_state_dict(state["train_step"])
        if train_step.weight_ema is not None:
            average, _ = read_weights(checkpoint / EMA_WEIGHTS)
            train_step.weight_ema.load_average(average)
    except KeyError as error:
        raise CheckpointError(
            f"{checkpoint}: not the state of this training step: it has no {error}"
        ) from error
    except UserError:
        raise
    except Exception as error:  # torch raises many kinds for a file that is not its own
        raise CheckpointError(
            f"{checkpoint}: not the state of this training step: {type(error).__name__}: {error}"
        ) from error
    return step


def _check_step(checkpoint: Path, step: int) -> None:
    """Refuses a folder that was renamed: its name says another step than its content."""
    named = step_of(checkpoint) if re.fullmatch(r"iter_\d+", checkpoint.name) else step
    if step != named:
        raise CheckpointError(
            f"{checkpoint}: holds the state after {step} steps, but its name says {named}; rename the folder to "
            f"iter_{step}"
        )


def _readable(size: int) -> str:
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.1f} MiB"
