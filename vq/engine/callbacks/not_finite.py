"""What is known of a step with a value that is not finite."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vq.errors import UserError

MOST_KEYS = 16
"""Keys per rank that a message names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """The samples of a step.

    Attributes:
        step: Its number, as in `StepResult`.
        batch: The number of its batch.
        keys: For each rank the keys of its samples.
        ranks: The ranks whose own values stand out; all if they cannot be told apart.
    """

    step: int
    batch: int
    keys: Sequence[Sequence[str]]
    ranks: Sequence[int]

    @property
    def all_keys(self) -> list[str]:
        """The keys of the whole batch, in the order of the ranks, which does not depend on their number."""
        return [key for own in self.keys for key in own]

    def __str__(self) -> str:
        """The samples in words, such as `batch 5, rank 1: a.png, b.png and 14 more`."""
        parts = []
        for rank in self.ranks:
            own = self.keys[rank]
            more = f" and {len(own) - MOST_KEYS} more" if len(own) > MOST_KEYS else ""
            place = f"rank {rank}: " if len(self.keys) > 1 else ""
            parts.append(f"{place}{', '.join(own[:MOST_KEYS])}{more}")
        return f"batch {self.batch}, {'; '.join(parts)}"


class NonFiniteLossError(UserError, RuntimeError):
    """A loss, a gradient or a weight became NaN or infinite; the message says when, which, and what to go back to.

    Args:
        step: The number of the step.
        what: The values, such as `loss/total, loss/l1`.
        last: The last good checkpoint, if there is one.
        origin: The samples of the step; None if they are not known.
    """

    def __init__(self, step: int, what: str, last: Path | None, origin: Origin | None = None) -> None:
        super().__init__(step, what, last, origin)
        self.step, self.what, self.last, self.origin = step, what, last, origin

    def __str__(self) -> str:
        """The message."""
        samples, cure = "", ""
        if self.origin is not None:
            samples = f"The samples of the step: {self.origin}. "
            cure = ', or trainer.on_nonfinite="rewind", which skips such samples'
        return (
            f"step {self.step}: {self.what} is not finite; training stopped and nothing was saved. {samples}"
            f"The last good checkpoint is {self.last or 'not yet written'}. "
            f"Lower train_step.optimizer.lr or set train_step.max_gradient_norm{cure}"
        )
