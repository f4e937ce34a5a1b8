"""Gloo ranks, also with shards of unequal size, equal one process: each script compares them in float64."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
SLOW = ("adversarial_ranks", "fsdp_ranks", "step_ranks")
SCRIPTS = [
    pytest.param(path, id=path.stem, marks=pytest.mark.slow if path.stem in SLOW else ())
    for path in sorted(HERE.glob("*_ranks.py"))
]


@pytest.mark.parametrize("script", SCRIPTS)
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
