"""The progress bar and the lines of the log."""

import logging
import resource
import sys
import time

import torch
from jaxtyping import UInt8
from rich.progress import TaskID
from torch import Tensor

from vq.engine.callbacks.base import Callback, Scalars
from vq.engine.callbacks.not_finite import NonFiniteLossError
from vq.engine.callbacks.rows import BestScores
from vq.engine.evaluation.progress import duration, progress_bar
from vq.registry import CALLBACKS

logger = logging.getLogger(__name__)


@CALLBACKS.register_module()
class ConsoleProgress(Callback):
    """Shows a progress bar on a terminal, and logs a line at each log step.

    Below the bar are the loss, the images per second since the last log step, the wait for data of the latest logged
    step, the peak memory, and the best value of the first ranked score.

    Args:
        batch_size: Images per step; None to show no images per second.
        best: Knows the best scores; None to show none.
    """

    def __init__(self, *, batch_size: int | None = None, best: BestScores | None = None) -> None:
        self.progress = progress_bar()
        self.batch_size, self.best = batch_size, best
        self.started = 0.0
        self.first_step = self.max_steps = 0
        self.task = TaskID(0)
        self._paced = 0, 0.0  # a step, and when it was done
        self._facts: dict[str, str] = {}

    def on_start(self, step: int, max_steps: int) -> None:
        """Shows the bar."""
        self.first_step, self.max_steps, self.started = step, max_steps, time.monotonic()
        self._paced = step, self.started
        self.task = self.progress.add_task("train", total=max_steps, completed=step, note="")
        self._note_best()
        self.progress.start()

    def on_step_end(self, step: int) -> None:
        """Advances the bar."""
        self.progress.update(self.task, completed=step)

    def on_log(self, step: int, scalars: Scalars) -> None:
        """Logs a line with the losses and the ETA, and shows how fast the training is."""
        now = time.monotonic()
        per_step = (now - self.started) / max(1, step - self.first_step)
        eta = duration(per_step * (self.max_steps - step))
        shown = "  ".join(f"{k.removeprefix('loss/')} {v:.4g}" for k, v in scalars.items() if "time" not in k)
        self._facts["loss"] = f"loss {scalars.get('loss/total', float('nan')):.4f}"
        before, at = self._paced
        if self.batch_size is not None and step > before and now > at:
            self._facts["pace"] = f"{self.batch_size * (step - before) / (now - at):,.1f} images/s"
        if "time/data" in scalars:
            self._facts["data"] = f"data wait {1000 * scalars['time/data']:.1f} ms"
        self._facts["memory"] = f"{peak_memory() / 2**30:.1f} GiB"
        self._paced = step, now
        self._show()
        logger.info("step %d/%d  eta %s  %s", step, self.max_steps, eta, shown)

    def on_not_finite(self, error: NonFiniteLossError, back_to: int | None) -> None:
        """Moves the bar back."""
        if back_to is not None:
            self.first_step, self.started = back_to, time.monotonic()
            self._paced = back_to, self.started
            self.progress.update(self.task, completed=back_to)

    def on_evaluation_end(self, step: int, scores: Scalars, picture: UInt8[Tensor, "3 h w"]) -> None:
        """Logs a line with the scores, and shows the best value so far."""
        logger.info("validation at step %d: %s", step, "  ".join(f"{k} {v:.4g}" for k, v in scores.items()))
        self._paced = step, time.monotonic()  # the pace is that of training alone
        self._note_best()

    def on_end(self, step: int) -> None:
        """Removes the bar."""
        self.progress.stop()

    def _note_best(self) -> None:
        found = {} if self.best is None else self.best.found()
        for name, (value, step) in list(found.items())[:1]:
            self._facts["best"] = f"best {name} {value:.4g} at step {step}"
        self._show()

    def _show(self) -> None:
        order = ("loss", "pace", "data", "memory", "best")
        facts = [self._facts[name] for name in order if name in self._facts]
        self.progress.update(self.task, note="  ".join(facts))


def peak_memory() -> int:
    """The largest number of bytes that this process has held so far: on the GPU if it uses one, else of the host."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
