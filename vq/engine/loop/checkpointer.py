"""Checkpoints that are whole or absent: written aside, described by a manifest, then renamed.

`checkpoints/iter_N/` holds `model.safetensors` (and `model_ema.safetensors`), `train_state.pt`,
`config.json`, and `MANIFEST.json` with the size and SHA-256 of each. What a sample looks like and what a
step draws are functions of the seed and the step (`vq.ops.keyed`), so there is no random state to save.
"""

import itertools
import json
import logging
import math
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from vq import __version__, distributed
from vq.engine.loop.resuming import ARGUMENTS, accepted_changes
from vq.engine.steps.base import TrainStep
from vq.errors import UserError
from vq.files import fsync, read_json, sha256_of, why, write_atomically
from vq.registry import ENGINES
from vq.text import printable
from vq.tokenizers.checkpoint import (
    EMA_WEIGHTS,
    WEIGHTS,
    CheckpointError,
    checkpoints_in,
    load_weights,
    read_weights,
    save_weights,
    step_of,
)
from vq.tokenizers.manifest import MANIFEST, ManifestError, read_manifest, verify

TRAIN_STATE = "train_state.pt"
SCORES = "validation.json"
"""What validation found, added to a finished checkpoint; the manifest does not name it."""
logger = logging.getLogger(__name__)


class NonFiniteLossError(UserError, RuntimeError):
    """A loss, a gradient or a weight became NaN or infinite; the message says when, which, and what to go back to."""


class SaveError(UserError, RuntimeError):
    """A checkpoint could not be written; the message says why, and which is the last good one."""


@ENGINES.register_module()
class Checkpointer:
    """Writes, verifies and finds the checkpoints of one run.

    The folders `iter_N` are those of one trajectory: when a run continues from an earlier checkpoint, the later ones
    are renamed to `iter_N.replaced_1`, which nothing takes for a checkpoint. The oldest are removed so that `keep`
    remain, after a newer one is whole; damaged ones do not count, and what this class did not write is left alone.
    With `keep=1` the one before goes only when the step after the newest, or its validation, was finite.

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
        self._sound: set[Path] = set()  # written or verified by this process

    def begin(self, train_step: TrainStep, start_step: int, max_steps: int) -> None:
        """Makes the folder ready for a training that starts at `start_step`; every rank must call it.

        Checkpoints that this training does not descend from are set aside: all that are later than the restored
        one, or all, if it is in another folder.

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
            self._set_newer_aside(start_step if descends else -1)
            self._sweep()
        except OSError as error:
            raise SaveError(f"{self.directory}: cannot be written: {error.strerror or error}") from error
        there = len([p for p in checkpoints_in(self.directory) if not _is_foreign(p)])
        saves = math.ceil((max_steps - start_step) / self.every)
        wanted = min(saves, saves if self.keep is None else max(0, max(self.keep, 2) + 1 - there))
        size, free = estimated_bytes(train_step), shutil.disk_usage(self.directory).free
        if (wanted and size * min(wanted, 2) > free) or (self.keep and size * wanted > free):
            raise SaveError(
                f"{self.directory}: the disk has {_readable(free)} left, but {wanted} checkpoints of about "
                f"{_readable(size)} are to be written; free some space, or lower checkpointer.keep"
            )
        if size * wanted > free:
            logger.warning(
                "%s: the disk has %s left, not enough for all %d checkpoints of about %s; set checkpointer.keep",
                self.directory, _readable(free), wanted, _readable(size),
            )  # fmt: skip

    def save(self, train_step: TrainStep, step: int) -> None:
        """Writes `iter_{step}` on rank 0; every rank waits. Older ones go only after it is whole.

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
        state = {"step": step, "train_step": train_step.state_dict()}
        average = {} if train_step.weight_ema is None else train_step.weight_ema.average
        weights = train_step.model.state_dict()
        for kind, tree in (
            ("weight", weights),
            ("averaged weight", average),
            ("state of the optimizer", state),
        ):
            if broken := not_finite(tree):
                raise NonFiniteLossError(
                    f"step {step}: the {kind} {broken} is not finite; training stopped and nothing was saved. "
                    f"The last good checkpoint is {self.newest_valid() or 'not yet written'}. "
                    f"Lower train_step.optimizer.lr or set train_step.max_gradient_norm"
                )
        partial = self.directory / f"iter_{step}.partial"
        try:
            self._write(weights, average, state, partial)
        except Exception as error:  # torch and safetensors raise their own kinds for a full disk
            shutil.rmtree(partial, ignore_errors=True)
            raise SaveError(
                f"{partial.with_suffix('')}: could not be saved: {why(error)}. The last good checkpoint is "
                f"{self.newest_valid() or 'not yet written'}"
            ) from error
        self._prune(step, None if self.keep is None else max(self.keep, 2))

    def _write(
        self,
        weights: Mapping[str, Tensor],
        average: Mapping[str, Tensor],
        state: Mapping[str, Any],
        partial: Path,
    ) -> None:
        final = partial.with_suffix("")
        self.directory.mkdir(parents=True, exist_ok=True)
        self._sweep()
        self._set_newer_aside(int(state["step"]))
        partial.mkdir()
        save_weights(weights, partial / WEIGHTS, self.config)
        if average:
            save_weights(average, partial / EMA_WEIGHTS, self.config)
        torch.save(state, partial / TRAIN_STATE)
        (partial / "config.json").write_text(json.dumps(self.config, indent=2), encoding="utf-8")
        (partial / ARGUMENTS).write_text(json.dumps(self.arguments, indent=2), encoding="utf-8")
        write_manifest(partial, int(state["step"]))
        if os.path.lexists(final):  # a resumed run came by here again, or something else has the name
            _set_aside(final, "is written again")
        partial.rename(final)
        fsync(self.directory)
        self._sound.add(final)

    def confirm(self, step: int) -> None:
        """Tells that training or validation was finite at `step`, so that older checkpoints are not needed.

        Args:
            step: A step after the one that was saved; or the same one after its validation.
        """
        if distributed.rank() == 0 and self.keep == 1:
            self._prune(step, 1)

    def _prune(self, step: int, limit: int | None) -> None:
        """Removes all but the `limit` newest valid checkpoints up to `step`."""
        if limit is None:
            return
        kept = 0
        for checkpoint in checkpoints_in(self.directory):
            is_ours = checkpoint.name == f"iter_{step_of(checkpoint)}" and not _is_foreign(checkpoint)
            if not is_ours or step_of(checkpoint) > step:
                continue
            try:
                if not self._is_sound(checkpoint):
                    _set_aside(checkpoint, "is damaged")
                elif kept < limit:
                    kept += 1
                else:
                    leftover = checkpoint.with_suffix(".partial")  # one that is killed here is swept later
                    checkpoint.rename(leftover)
                    shutil.rmtree(leftover)
            except OSError as error:
                logger.warning("%s: could not be removed: %s", checkpoint, error.strerror or error)

    def _is_sound(self, checkpoint: Path) -> bool:
        """Whether it is valid; one that was found valid before is looked at for missing and cut files only."""
        if checkpoint in self._sound:
            return _has_its_sizes(checkpoint)
        if verify(checkpoint) is None:
            self._sound.add(checkpoint)
            return True
        return False

    def _set_newer_aside(self, step: int) -> None:
        """Renames the checkpoints after `step`, which belong to another trajectory."""
        for checkpoint in checkpoints_in(self.directory):
            if step_of(checkpoint) > step and (checkpoint.is_symlink() or not _is_foreign(checkpoint)):
                _set_aside(checkpoint, "is of a training that this one replaces")

    def _sweep(self) -> None:
        """Removes what a killed process left half-written."""
        for leftover in self.directory.glob("iter_*.partial"):
            if leftover.is_dir() and not leftover.is_symlink():
                shutil.rmtree(leftover)

    def _on_first_rank(self, work: Callable[[], None]) -> None:
        """Does work on rank 0; what it raises is raised on every rank."""
        problem: Exception | None = None
        if distributed.rank() == 0:
            try:
                work()
            except Exception as error:
                problem = error
        told = distributed.broadcast_object(
            None if problem is None else (type(problem).__name__, str(problem))
        )
        if problem is not None:
            raise problem
        if told is not None:
            kind, message = told
            raise {"NonFiniteLossError": NonFiniteLossError}.get(kind, SaveError)(message)

    def newest_valid(self) -> Path | None:
        """The newest checkpoint whose files are all there and unchanged; damaged ones are named."""
        for checkpoint in checkpoints_in(self.directory):
            problem = verify(checkpoint)
            if problem is None:
                return checkpoint
            logger.warning("%s is damaged (%s); falling back to the one before", checkpoint, problem)
        return None

    def to_resume(self, *, may_be_none: bool = False) -> Path | None:
        """The newest valid checkpoint, the same on all ranks; None if no checkpoint has been written.

        Args:
            may_be_none: Return None too if all are damaged.

        Raises:
            CheckpointError: If there are checkpoints and all are damaged.
        """
        found, problems = None, list[str]()
        if distributed.rank() == 0:
            there = [p for p in checkpoints_in(self.directory) if not _is_foreign(p) or p.is_symlink()]
            found = self.newest_valid() if there else None
            if found is None and not may_be_none:
                problems = [f"{p.name} ({verify(p)})" for p in there]
        found, problems = distributed.broadcast_object((found, problems))
        if problems:
            raise CheckpointError(
                f"{self.directory}: every checkpoint is damaged: {', '.join(problems)}; remove or rename them to start "
                f"at step 0, or continue from another run's checkpoint with --load-from DIR"
            )
        return found

    def restore(self, train_step: TrainStep, checkpoint: Path) -> int:
        """Continues from a checkpoint; what differs from its config is logged, or refused before anything is loaded.

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
        self._check_step(checkpoint, step)
        self.origin = checkpoint
        return step

    @staticmethod
    def _check_step(checkpoint: Path, step: int) -> None:
        """Refuses a folder that was renamed: its name says another step than its content."""
        named = step_of(checkpoint) if re.fullmatch(r"iter_\d+", checkpoint.name) else step
        if step != named:
            raise CheckpointError(
                f"{checkpoint}: holds the state after {step} steps, and its name says {named}; give the folder its "
                f"name iter_{step} back"
            )

    def _check_exists(self, checkpoint: Path) -> None:
        if (
            checkpoint.is_dir()
            and checkpoint.name != "checkpoints"
            and not (checkpoint / "checkpoints").is_dir()
        ):
            return
        near = [self.directory, checkpoint / "checkpoints", checkpoint, checkpoint.parent]
        there = {str(p): None for folder in near for p in reversed(checkpoints_in(folder))}
        if not there:  # neither here nor there: those of the runs beside this one
            runs = sorted(self.directory.parent.parent.glob("*/checkpoints"))
            there = {str(p): None for folder in runs[:4] for p in reversed(checkpoints_in(folder)[:4])}
        raise CheckpointError(
            f"{printable(str(checkpoint))}: no such checkpoint; there are: {', '.join(there) or 'none'}. "
            f"--load-from takes the path of a checkpoint folder"
        )

    def write_scores(self, step: int, scores: Mapping[str, float]) -> None:
        """Notes what validation found, so that a run which was killed in between validates when it is resumed."""
        folder = self.directory / f"iter_{step}"
        if distributed.rank() == 0 and folder.is_dir():
            try:
                write_atomically(folder / SCORES, json.dumps(dict(scores), indent=2))
            except OSError as error:
                logger.warning("%s: could not be written: %s", folder / SCORES, why(error))

    def scores(self) -> dict[str, float] | None:
        """What validation found at the checkpoint that was restored; None if it did not take place."""
        found = None
        if distributed.rank() == 0 and self.origin is not None:
            try:
                content = read_json(self.origin / SCORES)
                found = {str(name): float(value) for name, value in content.items()}
            except (OSError, ValueError, AttributeError, TypeError):
                found = None
        return distributed.broadcast_object(found)


def estimated_bytes(train_step: TrainStep) -> int:
    """How large a checkpoint will be: weights, averages, and the optimizers' moments, before they exist."""
    weights: int = sum(t.numel() * t.element_size() for t in train_step.model.state_dict().values())
    average = {} if train_step.weight_ema is None else train_step.weight_ema.average
    moments: int = 0
    for optimizer in _optimizers(train_step, set()):
        defaults = optimizer.defaults
        copies = (
            2 + bool(defaults.get("amsgrad")) if "betas" in defaults else int(bool(defaults.get("momentum")))
        )
        sizes = [p.numel() * p.element_size() for group in optimizer.param_groups for p in group["params"]]
        moments += copies * sum(sizes)
    return weights + sum(t.numel() * t.element_size() for t in average.values()) + moments


def _optimizers(part: object, seen: set[int]) -> Iterator[Optimizer]:
    """The optimizers that a step, or a step inside it, holds."""
    for value in vars(part).values():
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, Optimizer):
            yield value
        elif type(value).__module__.startswith("vq.engine."):
            yield from _optimizers(value, seen)


def not_finite(tree: object, path: str = "") -> str:
    """The name of the first tensor in nested dicts and lists that holds NaN or infinity; empty if none does."""
    found: list[tuple[str, Tensor]] = []

    def collect(node: object, path: str) -> None:
        if isinstance(node, Tensor) and (node.is_floating_point() or node.is_complex()) and node.numel():
            found.append((path, node.detach().isfinite().all()))
        elif isinstance(node, Mapping):
            for key, value in node.items():
                collect(value, f"{path}.{key}".lstrip("."))
        elif isinstance(node, list | tuple):
            for i, value in enumerate(node):
                collect(value, f"{path}[{i}]")

    collect(tree, path)
    # One transfer a device, not one a tensor.
    for device in {flag.device for _, flag in found}:
        own = [(name, flag) for name, flag in found if flag.device == device]
        is_fine = torch.stack([flag for _, flag in own]).tolist()
        for (name, _), fine in zip(own, is_fine, strict=True):
            if not fine:
                return name
    return ""


def _is_foreign(checkpoint: Path) -> bool:
    """Whether this project did not write it: a link, or a folder without any file of a checkpoint."""
    return checkpoint.is_symlink() or not any(
        (checkpoint / name).exists() for name in (MANIFEST, WEIGHTS, TRAIN_STATE)
    )


def _has_its_sizes(checkpoint: Path) -> bool:
    try:
        files = read_manifest(checkpoint)
        return bool(files) and all(
            (checkpoint / name).stat().st_size == entry.bytes for name, entry in files.items()
        )
    except (OSError, ManifestError):
        return False


def _readable(size: int) -> str:
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.1f} MiB"


def write_manifest(checkpoint: Path, step: int) -> None:
    """Describes every file of a finished checkpoint, and makes all of them reach the disk."""
    files = sorted(checkpoint.iterdir())
    manifest = {
        "step": step,
        "world_size": distributed.world_size(),
        "versions": {"vq": __version__, "torch": torch.__version__},
        "files": {file.name: {"bytes": file.stat().st_size, "sha256": sha256_of(file)} for file in files},
    }
    (checkpoint / MANIFEST).write_text(json.dumps(manifest, indent=2), encoding="utf-8")
    for file in checkpoint.iterdir():
        fsync(file)
    fsync(checkpoint)


def _set_aside(checkpoint: Path, reason: str) -> None:
    """Renames a folder so that it is never taken for a checkpoint, and says so."""
    for i in itertools.count(1):
        aside = checkpoint.with_name(f"{checkpoint.name}.replaced_{i}")
        if not os.path.lexists(aside):
            os.rename(checkpoint, aside)
            logger.warning("%s %s; it is kept as %s", checkpoint, reason, aside.name)
            return


__all__ = [
    "MANIFEST",
    "Checkpointer",
    "NonFiniteLossError",
    "SaveError",
    "sha256_of",
    "step_of",
    "verify",
    "write_manifest",
]
