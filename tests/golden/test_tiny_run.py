"""Numbers that must not move unnoticed: five steps of a tiny run, and a stored checkpoint of version 0.1.

After a change that is meant to move them: `python tests/golden/record_tiny_run.py`, and a line under
"Numbers changed" in CHANGELOG.md.

Runs are in float64, so that sums in another order cannot matter. Their first weights are drawn in float32, where a
processor's logarithm may differ in the last place (6e-8 of a weight), and five steps enlarge that at most threefold
each (243 times): 1.5e-5, below the 1e-4 that is asserted.
"""

import json
from pathlib import Path

import pytest
import torch
from golden.record_tiny_run import CHECKPOINT, LOSSES, losses_of_five_steps, picture

import vq


@pytest.mark.parametrize("step", range(5))
def test_five_steps_have_the_stored_losses(step: int, five: list[dict[str, float]]) -> None:
    stored = json.loads(LOSSES.read_text())[step]
    assert five[step] == pytest.approx(stored, rel=1e-4, abs=1e-6)


@pytest.fixture(scope="module")
def five() -> list[dict[str, float]]:
    return losses_of_five_steps()


def test_a_checkpoint_of_version_0_1_still_loads_and_means_the_same() -> None:
    tokenizer = vq.load(CHECKPOINT)
    stored = json.loads(Path(CHECKPOINT).with_suffix(".json").read_text())
    assert tokenizer.encode(picture()).flatten().tolist() == stored["indices"]
    decoded = tokenizer.decode(torch.tensor(stored["indices"]).view(1, 8, 8))
    assert decoded.mean().item() == pytest.approx(stored["mean"], abs=1e-5)
