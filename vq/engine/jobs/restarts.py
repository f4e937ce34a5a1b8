"""Whether torchrun has started a training again: with `--max-restarts` it does so when one of the processes fails."""

import os
from pathlib import Path

from vq import distributed, failures


def note_start(run: Path) -> None:
    """Notes in the store of torchrun, which outlives its processes, that the training in a run folder has begun."""
    if "TORCHELASTIC_RUN_ID" in os.environ and distributed.rank() == 0:
        failures.torchrun_store().set(_key(run), "1")


def is_restart(run: Path) -> bool:
    """Whether an earlier start of the same torchrun has begun the training in a run folder; every rank must call it."""
    is_known = False
    if "TORCHELASTIC_RUN_ID" in os.environ and distributed.rank() == 0:
        is_known = failures.torchrun_store().check([_key(run)])
    return distributed.broadcast_object(is_known)


def _key(run: Path) -> str:
    return f"vq/training/{run.resolve()}"
