"""Every test draws from a fixed seed, on one thread: sums are added in the same order on any machine.

Tests also fork this process; the threads of a pool would not come along, and a child that waits for them hangs.
"""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # before torch reads it, and for the processes that tests start

import jaxtyping
import pytest
import torch

torch.set_num_threads(1)

# Converted weights are kept, but not in the cache of whoever runs the tests.
os.environ["VQ_CACHE"] = str(Path(__file__).parents[1] / ".pytest_cache" / "vq")

# Under nohup SIGHUP is ignored, and processes that tests start would inherit that.
if hasattr(signal, "SIGHUP"):
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

# A missing weight file must not depend on where pytest was started.
os.environ.pop("WORLD_SIZE", None)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def without_shape_checks() -> Iterator[None]:
    """torch.compile cannot trace the shape checks that this suite adds to every function.

    These are one piece of code, which may be compiled only a few times; what other tests compiled is forgotten.
    """
    torch._dynamo.reset()
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
