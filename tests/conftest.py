"""Every test draws from a fixed seed, on one thread: sums are added in the same order on any machine.

Tests also fork this process; the threads of a pool would not come along, and a child that waits for them hangs.
"""

import os
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # before torch reads it, and for the processes that tests start

import pytest
import torch

torch.set_num_threads(1)

# Converted weights are kept, but not in the cache of whoever runs the tests.
os.environ["VQ_CACHE"] = str(Path(__file__).parents[1] / ".pytest_cache" / "vq")

# A missing weight file must not depend on where pytest was started.
os.environ.pop("WORLD_SIZE", None)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)
