"""Entropies on two and four gloo ranks with uneven shards are those of one process, gradients too."""

import os
import subprocess
import sys
from pathlib import Path


def test_entropies_and_gradients_on_uneven_shards_are_those_of_one_process() -> None:
    script = Path(__file__).with_name("entropy_ranks.py")
    result = subprocess.run(
        [sys.executable, script],
        env=os.environ | {"PYTHONPATH": f"{script.parents[2]}:{script.parents[1]}", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert result.returncode == 0, result.stdout + result.stderr
