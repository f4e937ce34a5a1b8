"""Randomized faults: four rounds of `make soak`."""

import subprocess
import sys
from pathlib import Path

import pytest
from commands import ROOT


@pytest.mark.slow
def test_four_rounds_end_with_the_reference_bytes(tmp_path: Path) -> None:
    words = ["benchmarks/faults.py", "--rounds", "4", "--seed", "17", "--folder", tmp_path]
    done = subprocess.run(
        [sys.executable, *words], cwd=ROOT, capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    assert "4 rounds in" in done.stdout
    assert "4 survived" in done.stdout
    assert not list(tmp_path.glob("*"))
