"""Callbacks: they get values and show or store them; none can change a number of the run."""

import importlib.util
import json
import logging
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxtyping import UInt8
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from torch import Tensor

from vq.ops.images import save_png
from vq.registry import CALLBACKS

logger = logging.getLogger(__name__)
Scalars = Mapping[str, float]


class Callback:
    """Looks at a run; every method may be left out."""

    def on_start(self, step: int, max_steps: int) -> None:
        """Training begins (or continues) before step `step`."""

    def on_step_end(self, step: int) -> None:
        """`step` steps are done."""

    def on_log(self, step: int, scalars: Scalars) -> None:
        """The scalars of the newest step, averaged over ranks."""

    def on_evaluation_end(self, step: int, scores: Scalars, picture: UInt8[Tensor, "3 h w"]) -> None:
        """The scores of a validation and the grid of reconstructions."""

    def on_end(self, step: int) -> None:
        """Training is over, also after an error."""


def progress_bar() -> Progress:
    """A bar with ETA on a terminal; nothing elsewhere."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("eta"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=Console(stderr=True),
        disable=not sys.stderr.isatty(),
    )


@CALLBACKS.register_module()
class ConsoleProgress(Callback):
    """A bar with ETA on a terminal; elsewhere (and in log.txt) one line at each log step."""

    def __init__(self) -> None:
        self.progress = progress_bar()
        self.started = 0.0
        self.first_step = self.max_steps = 0

    def on_start(self, step: int, max_steps: int) -> None:
        """Draws the bar."""
        self.first_step, self.max_steps, self.started = step, max_steps, time.monotonic()
        self.task = self.progress.add_task("train", total=max_steps, completed=step, note="")
        self.progress.start()

    def on_step_end(self, step: int) -> None:
        """Moves the bar."""
        self.progress.update(self.task, completed=step)

    def on_log(self, step: int, scalars: Scalars) -> None:
        """A line with the losses and the ETA."""
        per_step = (time.monotonic() - self.started) / max(1, step - self.first_step)
        eta = duration(per_step * (self.max_steps - step))
        shown = "  ".join(f"{k.removeprefix('loss/')} {v:.4g}" for k, v in scalars.items() if "time" not in k)
        self.progress.update(self.task, note=f"loss {scalars.get('loss/total', float('nan')):.4f}")
        logger.info("step %d/%d  eta %s  %s", step, self.max_steps, eta, shown)

    def on_evaluation_end(self, step: int, scores: Scalars, picture: UInt8[Tensor, "3 h w"]) -> None:
        """A line with the scores."""
        logger.info("validation at step %d: %s", step, "  ".join(f"{k} {v:.4g}" for k, v in scores.items()))

    def on_end(self, step: int) -> None:
        """Takes the bar away."""
        self.progress.stop()


@CALLBACKS.register_module()
class MetricsFile(Callback):
    """Appends a line of JSON to `metrics.jsonl` for every log step and validation."""

    def __init__(self, *, directory: Path) -> None:
        self.path = directory / "metrics.jsonl"

    def on_start(self, step: int, max_steps: int) -> None:
        """Drops the rows past `step`: a resumed run takes those steps again."""
        if self.path.exists():
            lines = self.path.read_text(encoding="utf-8").splitlines()
            kept = [line for line in lines if line.endswith("}") and json.loads(line)["step"] <= step]
            partial = self.path.with_suffix(".partial")
            partial.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
            partial.replace(self.path)

    def on_log(self, step: int, scalars: Scalars) -> None:
        """`{"step": ..., "split": "train", ...}`."""
        self._append({"step": step, "split": "train", **scalars})

    def on_evaluation_end(self, step: int, scores: Scalars, picture: UInt8[Tensor, "3 h w"]) -> None:
        """`{"step": ..., "split": "val", ...}`."""
        self._append({"step": step, "split": "val", **scores})

    def _append(self, row: dict[str, Any]) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


@CALLBACKS.register_module()
class TensorBoard(Callback):
    """Writes scalars and grids as TensorBoard events under `tensorboard/`."""

    def __init__(self, *, directory: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(directory / "tensorboard"))

    def on_log(self, step: int, scalars: Scalars) -> None:
        """`train/...`."""
        for name, value in scalars.items():
            self.writer.add_scalar(f"train/{name}", value, step)

    def on_evaluation_end(self, step: int, scores: Scalars, picture: UInt8[Tensor, "3 h w"]) -> None:
        """`val/...` and the grid."""
        for name, value in scores.items():
            self.writer.add_scalar(f"val/{name}", value, step)
        self.writer.add_image("val/reconstructions", picture, step)
        self.writer.flush()

    def on_end(self, step: int) -> None:
        """Closes the file."""
        self.writer.close()


@CALLBACKS.register_module()
class WandB(Callback):
    """Sends scalars and grids to Weights & Biases; WANDB_MODE=offline needs no network."""

    def __init__(self, *, directory: Path, name: str, config: Mapping[str, Any]) -> None:
        self.arguments: dict[str, Any] = {
            "project": "vq",
            "name": name,
            "dir": str(directory),
            "config": dict(config),
        }
        if importlib.util.find_spec("wandb") is None:
            raise ModuleNotFoundError("--wandb needs the package wandb: pip install 'vq[wandb]'")

    def on_start(self, step: int, max_steps: int) -> None:
        """Opens the run; if the network fails here, training goes on without it."""
        import wandb

        self.run = wandb.init(**self.arguments)

    def on_log(self, step: int, scalars: Scalars) -> None:
        """`train/...`."""
        self.run.log({f"train/{k}": v for k, v in scalars.items()}, step=step)

    def on_evaluation_end(self, step: int, scores: Scalars, picture: UInt8[Tensor, "3 h w"]) -> None:
        """`val/...` and the grid."""
        import wandb

        image = wandb.Image(picture.permute(1, 2, 0).numpy())
        self.run.log({f"val/{k}": v for k, v in scores.items()} | {"val/reconstructions": image}, step=step)

    def on_end(self, step: int) -> None:
        """Finishes the run."""
        self.run.finish()


@CALLBACKS.register_module()
class ImageGrid(Callback):
    """Writes the grid of each validation to `images/iter_N.png`."""

    def __init__(self, *, directory: Path) -> None:
        self.directory = directory / "images"

    def on_evaluation_end(self, step: int, scores: Scalars, picture: UInt8[Tensor, "3 h w"]) -> None:
        """Saves the picture."""
        save_png(picture, self.directory / f"iter_{step}.png")


class Guarded(Callback):
    """Passes everything on to callbacks; one that fails is named in the log and left out from then on.

    A full disk, a dead logger process or a lost network must not end a training run.
    """

    def __init__(self, callbacks: list[Callback]) -> None:
        self.callbacks = list(callbacks)

    def on_start(self, step: int, max_steps: int) -> None:
        """Passed on."""
        self._each("on_start", step, max_steps)

    def on_step_end(self, step: int) -> None:
        """Passed on."""
        self._each("on_step_end", step)

    def on_log(self, step: int, scalars: Scalars) -> None:
        """Passed on."""
        self._each("on_log", step, scalars)

    def on_evaluation_end(self, step: int, scores: Scalars, picture: UInt8[Tensor, "3 h w"]) -> None:
        """Passed on."""
        self._each("on_evaluation_end", step, scores, picture)

    def on_end(self, step: int) -> None:
        """Passed on."""
        self._each("on_end", step)

    def _each(self, method: str, *arguments: Any) -> None:
        for callback in list(self.callbacks):
            try:
                getattr(callback, method)(*arguments)
            except Exception:  # whatever a logger raises, training goes on
                logger.exception(
                    "%s failed in %s; training goes on without it", type(callback).__name__, method
                )
                self.callbacks.remove(callback)


def duration(seconds: float) -> str:
    """Seconds as h:mm:ss."""
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
