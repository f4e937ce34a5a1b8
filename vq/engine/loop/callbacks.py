"""Callbacks: they receive values and show or store them; none can change a number of the run."""

import itertools
import json
import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxtyping import UInt8
from rich.progress import TaskID
from torch import Tensor

from vq import packages
from vq.engine.evaluation.progress import duration, progress_bar
from vq.errors import UserError
from vq.files import append_whole, why, write_atomically
from vq.ops.images import save_png
from vq.registry import CALLBACKS
from vq.text import printable

logger = logging.getLogger(__name__)
Scalars = Mapping[str, float]


class Callback:
    """Observes a run; a subclass overrides the methods that it needs."""

    def on_start(self, step: int, max_steps: int) -> None:
        """Training begins, or continues after `step` steps."""

    def on_step_end(self, step: int) -> None:
        """Step number `step` is done."""

    def on_log(self, step: int, scalars: Scalars) -> None:
        """Receives the scalars of the latest step, averaged over ranks."""

    def on_evaluation_end(self, step: int, scores: Scalars, picture: UInt8[Tensor, "3 h w"]) -> None:
        """Receives the scores of a validation and the picture that the evaluator drew."""

    def on_end(self, step: int) -> None:
        """Training has ended, possibly by an error."""


@CALLBACKS.register_module()
class ConsoleProgress(Callback):
    """Shows a progress bar with ETA on a terminal, and logs a line at each log step."""

    def __init__(self) -> None:
        self.progress = progress_bar()
        self.started = 0.0
        self.first_step = self.max_steps = 0
        self.task = TaskID(0)

    def on_start(self, step: int, max_steps: int) -> None:
        """Shows the bar."""
        self.first_step, self.max_steps, self.started = step, max_steps, time.monotonic()
        self.task = self.progress.add_task("train", total=max_steps, completed=step, note="")
        self.progress.start()

    def on_step_end(self, step: int) -> None:
        """Advances the bar."""
        self.progress.update(self.task, completed=step)

    def on_log(self, step: int, scalars: Scalars) -> None:
        """Logs a line with the losses and the ETA."""
        per_step = (time.monotonic() - self.started) / max(1, step - self.first_step)
        eta = duration(per_step * (self.max_steps - step))
        shown = "  ".join(f"{k.removeprefix('loss/')} {v:.4g}" for k, v in scalars.items() if "time" not in k)
        self.progress.update(self.task, note=f"loss {scalars.get('loss/total', float('nan')):.4f}")
        logger.info("step %d/%d  eta %s  %s", step, self.max_steps, eta, shown)

    def on_evaluation_end(self, step: int, scores: Scalars, picture: UInt8[Tensor, "3 h w"]) -> None:
        """Logs a line with the scores."""
        logger.info("validation at step %d: %s", step, "  ".join(f"{k} {v:.4g}" for k, v in scores.items()))

    def on_end(self, step: int) -> None:
        """Removes the bar."""
        self.progress.stop()


@CALLBACKS.register_module()
class MetricsFile(Callback):
    """Appends a line of JSON to `metrics.jsonl` for every log step and validation.

    A row that cannot be written, for example because the disk is full, is kept in memory and written with a later one;
    the file never ends in part of a row. Rows of steps that a resumed run repeats are moved to `metrics.jsonl.1` (or
    `.2`, ...).
    """

    def __init__(self, *, directory: Path) -> None:
        self.path = directory / "metrics.jsonl"
        self._waiting: list[str] = []
        self._validated: set[int] = set()

    def on_start(self, step: int, max_steps: int) -> None:
        """Moves rows after `step`, which a resumed run writes again, and damaged rows to another file."""
        lines = self.path.read_bytes().splitlines(keepends=True) if self.path.exists() else []
        rows = [(line, _row(line)) for line in lines]
        kept = [(line, row) for line, row in rows if row is not None and row["step"] <= step]
        moved = [line for line, row in rows if row is None or row["step"] > step]
        self._validated = {row["step"] for _, row in kept if row.get("split") == "val"}
        if moved:
            aside = next(p for i in itertools.count(1) if not (p := Path(f"{self.path}.{i}")).exists())
            write_atomically(aside, b"".join(moved))
            write_atomically(self.path, b"".join(line for line, _ in kept))
            logger.info("%d rows of %s after step %d are now in %s", len(moved), self.path, step, aside.name)

    def on_log(self, step: int, scalars: Scalars) -> None:
        """Appends `{"step": ..., "split": "train", ...}`."""
        self._append({"step": step, "split": "train", **scalars})

    def on_evaluation_end(self, step: int, scores: Scalars, picture: UInt8[Tensor, "3 h w"]) -> None:
        """Appends `{"step": ..., "split": "val", ...}`; once per step, also if a resumed run validates it again."""
        if step not in self._validated:
            self._validated.add(step)
            self._append({"step": step, "split": "val", **scores})

    def on_end(self, step: int) -> None:
        """Writes the rows that are still in memory."""
        if self._waiting:
            self._write()

    def _append(self, row: dict[str, Any]) -> None:
        self._waiting.append(json.dumps(row) + "\n")
        self._write()

    def _write(self) -> None:
        try:
            append_whole(self.path, "".join(self._waiting).encode("utf-8"))
        except OSError as error:
            raise OSError(
                error.errno, f"{self.path}: {why(error)}; {len(self._waiting)} rows are kept in memory"
            ) from error
        self._waiting = []


def _row(line: bytes) -> dict[str, Any] | None:
    """The row that a complete line of JSON holds; None for anything else."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    is_row = isinstance(row, dict) and isinstance(row.get("step"), int) and line.endswith(b"\n")
    return row if is_row else None


@CALLBACKS.register_module()
class TensorBoard(Callback):
    """Writes scalars and grids as TensorBoard events under `tensorboard/`.

    A resumed run tells TensorBoard to discard the steps that it repeats. After an error, such as a full disk, the next
    value opens a new file.

    Raises:
        MissingPackageError: If the package is not installed; see `tensorboard_if_installed`.
    """

    def __init__(self, *, directory: Path) -> None:
        packages.require("tensorboard", needed_by="TensorBoard")
        self.directory = directory / "tensorboard"
        self.writer: Any = None

    def on_start(self, step: int, max_steps: int) -> None:
        """Opens the file; what was written for steps after `step` is discarded."""
        self._open(purge_step=step + 1 if step else None)

    def on_log(self, step: int, scalars: Scalars) -> None:
        """Writes `train/...`."""
        self._write({f"train/{name}": value for name, value in scalars.items()}, step)

    def on_evaluation_end(self, step: int, scores: Scalars, picture: UInt8[Tensor, "3 h w"]) -> None:
        """Writes `val/...` and the picture."""
        self._write({f"val/{name}": value for name, value in scores.items()}, step, picture)

    def on_end(self, step: int) -> None:
        """Closes the file."""
        if self.writer is not None:
            self.writer.close()

    def _open(self, purge_step: int | None = None) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(self.directory), purge_step=purge_step)

    def _write(self, values: Scalars, step: int, picture: Tensor | None = None) -> None:
        if self.writer is None:
            self._open()
        try:
            for name, value in values.items():
                self.writer.add_scalar(printable(name), value, step)
            if picture is not None:
                self.writer.add_image("val/reconstructions", picture, step)
                self.writer.flush()
        except Exception:
            self.writer = None  # its thread ended with the error
            raise


def tensorboard_if_installed(directory: Path) -> list[Callback]:
    """A `TensorBoard` for this folder; without the package, no callback, and one line in the log."""
    if packages.is_installed("tensorboard"):
        return [TensorBoard(directory=directory)]
    logger.info(
        "no TensorBoard files: the package tensorboard is not installed; %s",
        packages.how_to_install("tensorboard"),
    )
    return []


@CALLBACKS.register_module()
class WandB(Callback):
    """Sends scalars and pictures to Weights & Biases; WANDB_MODE=offline needs no network.

    A resumed run continues the same W&B run. Without a network at the start, the values are kept in `wandb/` for
    `wandb sync`.

    Raises:
        MissingPackageError: If the package is not installed.
        LoggerError: If nobody is logged in.
    """

    def __init__(self, *, directory: Path, name: str, config: Mapping[str, Any]) -> None:
        packages.require("wandb", needed_by="--wandb")
        if not _has_wandb_login():
            raise LoggerError(
                "--wandb: expected a login to Weights & Biases, got none; run `wandb login`, set WANDB_API_KEY, or set "
                "WANDB_MODE=offline"
            )
        self.id_file = directory / "wandb_id.txt"
        self.run: Any = None
        self.arguments: dict[str, Any] = {
            "project": "vq",
            "name": name,
            "dir": str(directory),
            "config": dict(config),
            "resume": "allow",
        }

    def on_start(self, step: int, max_steps: int) -> None:
        """Opens the W&B run, that of the earlier training if there is one; offline if there is no network."""
        import wandb

        known = self.id_file.read_text(encoding="utf-8").strip() if self.id_file.exists() else None
        try:
            self.run = wandb.init(id=known, **self.arguments)
        except wandb.errors.Error as error:
            logger.warning("wandb: %s; values are kept under %s for wandb sync", error, self.arguments["dir"])
            self.run = wandb.init(id=known, mode="offline", **self.arguments)
        write_atomically(self.id_file, f"{self.run.id}\n")

    def on_log(self, step: int, scalars: Scalars) -> None:
        """Writes `train/...`."""
        if self.run is not None:
            self.run.log({printable(f"train/{k}"): v for k, v in scalars.items()}, step=step)

    def on_evaluation_end(self, step: int, scores: Scalars, picture: UInt8[Tensor, "3 h w"]) -> None:
        """Writes `val/...` and the picture."""
        import wandb

        if self.run is not None:
            image = wandb.Image(picture.permute(1, 2, 0).numpy())
            values = {printable(f"val/{k}"): v for k, v in scores.items()}
            self.run.log(values | {"val/reconstructions": image}, step=step)

    def on_end(self, step: int) -> None:
        """Finishes the run."""
        if self.run is not None:
            self.run.finish()


class LoggerError(UserError, RuntimeError):
    """A requested logger cannot be used."""


def _has_wandb_login() -> bool:
    if os.environ.get("WANDB_MODE", "online") not in ("online", "shared") or os.environ.get("WANDB_API_KEY"):
        return True
    import wandb

    try:
        return bool(wandb.login(prompt=False))
    except Exception:  # no network, or a version with another interface: on_start finds out
        return True


@CALLBACKS.register_module()
class ImageGrid(Callback):
    """Writes the picture of each validation to `images/iter_N.png`."""

    def __init__(self, *, directory: Path) -> None:
        self.directory = directory / "images"

    def on_evaluation_end(self, step: int, scores: Scalars, picture: UInt8[Tensor, "3 h w"]) -> None:
        """Saves the picture."""
        save_png(picture, self.directory / f"iter_{step}.png")


class Guarded(Callback):
    """Calls callbacks; one that fails is named in the log, and called again the next time.

    A full disk, a logger process that died or a lost network must not end a training.
    """

    def __init__(self, callbacks: list[Callback]) -> None:
        self.callbacks = list(callbacks)
        self._failures: dict[str, int] = {}

    def on_start(self, step: int, max_steps: int) -> None:
        """Calls the method of each callback."""
        self._each("on_start", step, max_steps)

    def on_step_end(self, step: int) -> None:
        """Calls the method of each callback."""
        self._each("on_step_end", step)

    def on_log(self, step: int, scalars: Scalars) -> None:
        """Calls the method of each callback."""
        self._each("on_log", step, scalars)

    def on_evaluation_end(self, step: int, scores: Scalars, picture: UInt8[Tensor, "3 h w"]) -> None:
        """Calls the method of each callback."""
        self._each("on_evaluation_end", step, scores, picture)

    def on_end(self, step: int) -> None:
        """Calls the method of each callback."""
        self._each("on_end", step)

    def _each(self, method: str, *arguments: Any) -> None:
        for callback in self.callbacks:
            name = type(callback).__name__
            try:
                getattr(callback, method)(*arguments)
            except Exception as error:  # whatever a logger raises, training continues
                self._failures[name] = count = self._failures.get(name, 0) + 1
                if count & (count - 1) == 0:  # the 1st, 2nd, 4th, 8th, ... time
                    is_known = isinstance(error, OSError)
                    logger.warning(
                        "%s failed in %s (%s); training continues, and it is tried again (failure %d)",
                        name, method, why(error), count, exc_info=None if is_known else error,
                    )  # fmt: skip
            else:
                if method != "on_step_end" and (count := self._failures.pop(name, 0)):
                    logger.warning("%s works again after %d failures", name, count)
