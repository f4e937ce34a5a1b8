"""One, two and four ranks with their parts of the batch, and micro-batches: the same weights from the same page."""

import subprocess
import sys
from pathlib import Path

from commands import ROOT, environment


def test_the_same_weights_on_any_number_of_ranks_and_micro_batches() -> None:
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("page_ranks.py")],
        env=environment(PYTHONPATH=f"{ROOT}:{ROOT / 'tests'}"),
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert done.returncode == 0, done.stdout + done.stderr
