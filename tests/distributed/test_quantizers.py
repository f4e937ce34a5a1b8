"""Quantizers on two and four gloo ranks with uneven shards equal one process."""

import os
import subprocess
import sys
from pathlib import Path


def test_ranks_with_uneven_shards_learn_what_one_process_learns() -> None:
    script = Path(__file__).with_name("quantizer_ranks.py")
    result = subprocess.run(
        [sys.executable, script],
        env=os.environ | {"PYTHONPATH": f"{script.parents[2]}:{script.parents[1]}", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert result.returncode == 0, result.stdout + result.stderr
