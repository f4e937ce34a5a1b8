"""Adversarial training on two gloo ranks equals one process."""

import os
import subprocess
import sys
from pathlib import Path


def test_two_ranks_move_both_networks_as_one_process_does() -> None:
    script = Path(__file__).with_name("adversarial_ranks.py")
    result = subprocess.run(
        [sys.executable, script],
        env=os.environ | {"PYTHONPATH": f"{script.parents[2]}:{script.parents[1]}", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert result.returncode == 0, result.stdout + result.stderr
