"""Training steps on two and four gloo ranks, with ranks and micro-batches of unequal size, equal one process."""

import os
import subprocess
import sys
from pathlib import Path


def test_unequal_ranks_and_micro_batches_move_as_one_process_does() -> None:
    script = Path(__file__).with_name("step_ranks.py")
    result = subprocess.run(
        [sys.executable, script],
        env=os.environ | {"PYTHONPATH": f"{script.parents[2]}:{script.parents[1]}", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert result.returncode == 0, result.stdout + result.stderr
