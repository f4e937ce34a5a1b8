"""Gloo ranks, also with shards of unequal size, equal one process: each script compares them in float64."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.mark.parametrize("script", sorted(HERE.glob("*_ranks.py")), ids=lambda path: path.stem)
def test_ranks_equal_one_process(script: Path) -> None:
    result = subprocess.run(
        [sys.executable, script],
        env=os.environ | {"PYTHONPATH": f"{HERE.parents[1]}:{HERE.parent}", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert result.returncode == 0, result.stdout + result.stderr
