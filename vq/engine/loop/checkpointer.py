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
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar, cast

import torch

from vq import distributed
from vq.engine.callbacks.not_finite import NonFiniteLossError
from vq.engine.loop.checkpoint_backup import Backup
from vq.engine.loop.checkpoint_files import TRAIN_STATE, Content, estimated_bytes
from vq.engine.loop.checkpoint_folder import SCORES, CheckpointFolder, most_at_once, read_scores
from vq.engine.loop.checkpoint_remote import backup_of
from vq.engine.loop.checkpoint_writer import BackgroundJobs, HostMemory
from vq.engine.loop.resuming import accepted_changes
from vq.engine.steps.base import TrainStep
from vq.errors import ConfigError, UserError
from vq.files import why, write_atomically
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

Result = TypeVar("Result")
logger = logging.getLogger(__name__)


class SaveError(UserError, RuntimeError):
    """A checkpoint could not be written; the message says why, and which is the last good one."""


@ENGINES.register_module()
class Checkpointer:
    """Writes, verifies and restores the checkpoints of one run.

    The folders `iter_N` are those of one trajectory: when a run continues from an earlier checkpoint, the later ones
    are renamed to `iter_N.replaced_1`, a name that nothing takes for a checkpoint. After a new checkpoint is whole,
    those are removed that neither `keep` nor `keep_every` nor `keep_best` keeps; damaged ones do not count, and what
    this class did not write is left alone. With `keep=1` the previous one is removed only once the step after the
    newest, or its validation, was finite.

    Args:
        directory: `work_dirs/NAME/checkpoints`.
        config: The resolved config as plain data; stored with each checkpoint, as are `arguments`.
        every: Steps between checkpoints; the last step is always saved.
        keep: How many of the newest to keep; None keeps all.
        keep_every: Keep those too whose step is a multiple of this number, which must be a multiple of `every`.
        keep_best: Keep the one too whose validation had the best value of this score, such as "psnr". The metric says
            whether higher is better.
        backup_to: A folder that gets every checkpoint too, below `NAME/checkpoints`: hard links, which need no space
            of their own, or copies if it is on another file system; or an address such as `s3://bucket/backups`.
            Nothing is removed there.

    Raises:
        ValueError: If `every` or `keep` is below 1, `keep_every` is not a multiple of `every`, or `keep_every` or
            `keep_best` is given although `keep=None` keeps all.
    """

    def __init__(
        self,
        *,
        directory: Path,
        config: Mapping[str, Any],
        every: int,
        keep: int | None = None,
        keep_every: int | None = None,
        keep_best: str | None = None,
        backup_to: str | Path | None = None,
    ) -> None:
        if every < 1 or (keep is not None and keep < 1):
            raise ValueError(f"expected every >= 1 and keep >= 1 (or None), got every={every}, keep={keep}")
        if keep_every is not None and (keep_every < 1 or keep_every % every):
            raise ValueError(f"keep_every: expected a multiple of every={every}, got {keep_every}")
        if keep is None and (keep_every is not None or keep_best is not None):
            raise ValueError(
                f"expected keep with keep_every or keep_best, got keep=None, which keeps all checkpoints, "
                f"keep_every={keep_every} and keep_best={keep_best!r}; set keep, the number of the newest to keep, "
                f"such as keep=2"
            )
        self.directory, self.config, self.every, self.keep = directory, config, every, keep
        self.keep_every, self.keep_best = keep_every, keep_best
        self.backup = None if backup_to is None else backup_of(directory, str(backup_to))
        self._is_higher_better: bool | None = None  # of the score `keep_best`, once it is known
        self.arguments: dict[str, Any] = {}
        self.origin: Path | None = None
        self.is_saving = False  # the same on all ranks, unlike the jobs, which are those of rank 0
        self._folder = CheckpointFolder(directory)
        self._memory, self._jobs = HostMemory(), BackgroundJobs()

    def rank_by(self, directions: Mapping[str, bool], *, validates_every: int) -> None:
        """Learns which value of the score `keep_best` is the best; does nothing without `keep_best`.

        Args:
            directions: For each score of the validation, whether a larger value is better.
            validates_every: Steps between validations.

        Raises:
            ConfigError: If `keep_best` is not one of the scores, or there are validations of steps that are not saved.
        """
        if self.keep_best is None:
            return
        if self.keep_best not in directions:
            raise ConfigError(
                f"checkpointer.keep_best: expected a score of the validation by which models can be ranked "
                f"({', '.join(sorted(directions)) or 'there is none'}), got {self.keep_best!r}; correct the name, or "
                f"add its metric to evaluator.metrics"
            )
        if validates_every % self.every:
            raise ConfigError(
                f"checkpointer.keep_best: every {validates_every} steps (evaluator.every) the model is validated, but "
                f"it is saved every {self.every} (checkpointer.every), so the best scores may be of weights that are "
                f"not saved; make evaluator.every a multiple of checkpointer.every"
            )
        self._is_higher_better = directions[self.keep_best]

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
        num_new = math.ceil((max_steps - start_step) / self.every)
        if self.backup is not None:
            self._check_backup(self.backup, num_new * estimated_bytes(train_step))
        if self.keep is not None:
            most = most_at_once(
                keep=self.keep, keep_every=self.keep_every, keep_best=self.keep_best, max_steps=max_steps
            )
            num_new = min(num_new, max(0, most - self._folder.num_checkpoints()))
        self._check_space(estimated_bytes(train_step), num_new)

    def _check_space(self, size: int, num_new: int) -> None:
        """Raises if the disk has no space for the new checkpoints that will exist side by side, of `size` bytes."""
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

    def _check_backup(self, backup: Backup, size: int) -> None:
        """Raises if the backup cannot be written; warns if it has no space for the checkpoints to come."""
        try:
            kind, free = backup.prepare(self.directory), backup.free_bytes()
        except Exception as error:  # remote file systems raise exceptions of their own
            raise SaveError(
                f"{backup}: cannot be written: {why(error)}; correct checkpointer.backup_to"
            ) from error
        logger.info("backups in %s are %s", backup, kind)
        if free is not None and size > free:
            logger.warning(
                "%s: the disk has %s left, not enough for the backups of all checkpoints to come, about %s in all; "
                "free some space, or raise checkpointer.every",
                backup, _readable(free), _readable(size),
            )  # fmt: skip

    def save(self, train_step: TrainStep, step: int) -> None:
        """Writes `iter_{step}` on rank 0; every rank waits. Older ones are removed only after it is whole.

        Raises:
            NonFiniteLossError: On all ranks, if a weight, an average or an optimizer's state is NaN or infinite;
                nothing is written then.
            SaveError: On all ranks, if it could not be written; no part of it remains.
        """
        self.start_saving(train_step, step)
        self.is_saved(wait=True)

    def start_saving(self, train_step: TrainStep, step: int) -> None:
        """Copies the content of `iter_{step}` on rank 0, where a thread then writes it; every rank waits for the copy.

        An earlier save must have ended (`is_saved`). Training may go on at once. The memory of the copy is kept for the
        next one.

        Raises:
            NonFiniteLossError: On all ranks, if a weight, an average or an optimizer's state is NaN or infinite;
                nothing is written then.
            SaveError: On all ranks, if the folder of the checkpoint cannot be made.
        """
        content = Content.of(train_step, step)
        self._on_first_rank(lambda: self._start_saving(content))
        self.is_saving = True

    def is_saved(self, *, wait: bool = False) -> bool:
        """Whether what `start_saving` has started is written; every rank must call it.

        Args:
            wait: Return only when it is.

        Raises:
            SaveError: On all ranks, if it could not be written; no part of it remains.
        """
        if not self.is_saving:
            return True

        def has_ended() -> bool:
            if wait:
                self._jobs.wait()
            is_idle = self._jobs.is_idle
            self._jobs.raise_errors()
            return is_idle

        self.is_saving = False  # if it failed
        self.is_saving = not self._on_first_rank(has_ended)
        return not self.is_saving

    def settle(self) -> bool:
        """Waits until this rank writes nothing, without other ranks; returns False, and logs why, if that failed."""
        self._jobs.wait()
        self.is_saving = False
        try:
            self._jobs.raise_errors()
        except SaveError as error:
            logger.error("%s", error)
            return False
        return True

    def save_alone(self, train_step: TrainStep, step: int) -> None:
        """`save` without waiting for other ranks, which may have failed already; does nothing on ranks above 0.

        It is not possible if the model is divided among ranks (`Strategy.is_sharded`).
        """
        if distributed.rank() == 0:
            self.settle()
            self._start_saving(Content.of(train_step, step))
            self._jobs.wait()
            self._jobs.raise_errors()

    def _start_saving(self, content: Content) -> None:
        step = content.step
        if broken := content.not_finite():
            raise NonFiniteLossError(step, f"the {broken}", self.newest_valid())
        self._jobs.wait()  # the memory of the copy may still be in use
        partial = self._folder.partial(step)
        with self._removed_on_error(partial):
            self.directory.mkdir(parents=True, exist_ok=True)
            self._folder.sweep()
            self._folder.set_newer_aside(step)
            partial.mkdir()
            copied, arguments = content.copied(self._memory), dict(self.arguments)
        self._jobs.start(lambda: self._write(copied, arguments, partial))

    def _write(self, content: Content, arguments: Mapping[str, Any], partial: Path) -> None:
        """Writes a checkpoint, and then removes those that no rule keeps."""
        with self._removed_on_error(partial):
            content.write(partial, config=self.config, arguments=arguments)
            self._folder.publish(partial)
        if self.backup is not None:
            self.backup.add_all(self.directory)
        if self.keep is not None:
            self._prune(content.step, max(self.keep, 2))

    @contextmanager
    def _removed_on_error(self, partial: Path) -> Iterator[None]:
        """If an error occurs inside, removes the unfinished checkpoint and raises `SaveError`."""
        try:
            yield
        except Exception as error:  # torch and safetensors raise their own when the disk is full
            shutil.rmtree(partial, ignore_errors=True)
            raise SaveError(
                f"{partial.with_suffix('')}: could not be saved: {why(error)}. The last good checkpoint is "
                f"{self._folder.newest_valid() or 'not yet written'}"
            ) from error

    def confirm(self, step: int) -> None:
        """Reports that training or validation was finite at `step`, so that older checkpoints are not needed.

        Args:
            step: A step after the one that was saved; or the same one after its validation.
        """
        if distributed.rank() == 0 and self.keep == 1:
            self._jobs.do(lambda: self._prune(step, 1))

    def _prune(self, step: int, limit: int) -> None:
        """Removes the checkpoints up to `step` that no rule keeps; `limit` is the number of the newest to keep."""
        best = None
        if self.keep_best is not None:
            if self._is_higher_better is None:
                raise RuntimeError(
                    f"Checkpointer: expected the direction of keep_best={self.keep_best!r} before the first "
                    f"checkpoint, got none; call rank_by({{{self.keep_best!r}: True}}, validates_every=...) first"
                )
            best = self._folder.best(step, self.keep_best, higher_is_better=self._is_higher_better)
        self._folder.prune(step, limit, every=self.keep_every, best=best)

    def _on_first_rank(self, work: Callable[[], Result]) -> Result:
        """Does work on rank 0; every rank returns its result, or raises what it has raised."""
        problem: Exception | None = None
        result: Result | None = None
        if distributed.rank() == 0:
            try:
                result = work()
            except Exception as error:
                problem = error
        known = problem if isinstance(problem, NonFiniteLossError) else problem and SaveError(str(problem))
        sent = distributed.broadcast_object((result, known))
        if problem is not None:
            raise problem
        result, said = sent
        if said is not None:
            raise said
        return cast(Result, result)

    def newest_valid(self) -> Path | None:
        """The newest checkpoint whose files are all there and unchanged; damaged ones are logged.

        If one is being written, it waits for that.
        """
        self._jobs.wait()
        return self._folder.newest_valid()

    def to_resume(self, *, may_be_none: bool = False) -> Path | None:
        """The newest valid checkpoint, the same on all ranks; None if no checkpoint has been written.

        If one is being written, it waits for that.

        Args:
            may_be_none: Return None also if all are damaged.

        Raises:
            CheckpointError: If there are checkpoints and all are damaged.
        """
        found, problems = None, list[str]()
        self._jobs.wait()
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
        """Stores the scores of a checkpoint: a run that is killed before this validates again when it is resumed.

        With `keep_best`, the checkpoint that was the best until now is removed, unless another rule keeps it.
        """
        if distributed.rank() == 0:
            self._jobs.do(lambda: self._write_scores(step, scores))

    def _write_scores(self, step: int, scores: Mapping[str, float]) -> None:
        folder = self.directory / f"iter_{step}"
        if not folder.is_dir():
            return
        try:
            write_atomically(folder / SCORES, json.dumps(dict(scores), indent=2))
        except OSError as error:
            logger.warning("%s: could not be written: %s", folder / SCORES, why(error))
        if self.backup is not None:
            self.backup.add_all(self.directory)
        if self.keep is not None and self.keep_best is not None:
            self._prune(step, max(self.keep, 2))

    def scores(self) -> dict[str, float] | None:
        """The stored scores of the checkpoint that was restored; None if it was not validated."""
        found = None
        if distributed.rank() == 0 and self.origin is not None:
            found = read_scores(self.origin) or None
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
