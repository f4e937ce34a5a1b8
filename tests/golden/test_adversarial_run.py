"""Numbers that must not move unnoticed: five steps of a tiny adversarial run.

After a change that is meant to move them: `python tests/golden/record_adversarial_run.py`, and a line under
"Numbers changed" in CHANGELOG.md.

Runs are in float64, so that sums in another order cannot matter. Their first weights are drawn in float32, where a
processor's logarithm may differ in the last place (6e-8 of a weight), and five steps enlarge that at most threefold
each (243 times): 1.5e-5, below the 1e-4 that is asserted.
"""

import json

import pytest
from golden.record_adversarial_run import LOSSES, losses_of_five_steps


def test_five_steps_have_the_stored_losses() -> None:
    stored = json.loads(LOSSES.read_text())
    for row, wanted in zip(losses_of_five_steps(), stored, strict=True):
        assert row == pytest.approx(wanted, rel=1e-4, abs=1e-6)
