"""Numbers that must not move unnoticed: five steps of an alternating run, a probe, and each kind of generator.

After a change that is meant to move them: `python tests/golden/record_other_steps.py`, and a line under
"Numbers changed" in CHANGELOG.md.

Runs are in float64, so that sums in another order cannot matter. Their first weights are drawn in float32, where a
processor's logarithm may differ in the last place (6e-8 of a weight), and five steps enlarge that at most threefold
each (243 times): 1.5e-5, below the 1e-4 that is asserted.
"""

import json

import pytest
from golden.record_other_steps import CASES, LOSSES, losses_of_five_steps

from vq.registry import STEPS

OTHERS = {"ReconstructionStep", "AdversarialStep"}  # test_tiny_run.py, test_adversarial_run.py


@pytest.mark.parametrize("case", CASES)
def test_five_steps_have_the_stored_losses(case: str) -> None:
    stored = json.loads(LOSSES.read_text())[case]
    for row, wanted in zip(losses_of_five_steps(case), stored, strict=True):
        assert row == pytest.approx(wanted, rel=1e-4, abs=1e-6)


def test_every_step_has_stored_losses() -> None:
    assert set(STEPS.module_dict) == OTHERS | {"AlternatingStep", "ProbeStep", "ProposalStep"}
