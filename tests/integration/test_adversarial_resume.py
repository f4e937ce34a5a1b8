"""An adversarial run that is killed after its discriminator has begun ends as one that was not."""

import json
from pathlib import Path

import pytest
import torch
from commands import TINY, run, run_and_kill
from safetensors.torch import load_file
from test_resume import flat, timeless

START, AFTER, STEPS = 2, 4, 24
ADVERSARY = (
    "dict(type='vq.engine.Adversary', "
    "discriminator=dict(type='vq.networks.PatchDiscriminator', base_width=8, depth=1), "
    "objective=dict(type='vq.losses.HingeObjective'), "
    "optimizer=dict(type='torch.optim.Adam', lr=1e-3, betas=[0.5, 0.9]), "
    "penalties=dict(lecam=dict(type='vq.losses.LeCAMPenalty'), r1=dict(type='vq.losses.R1Penalty', every=3)), "
    f"weights=dict(objective=1.0, lecam=0.01, r1=0.1), start_step={START})"
)
ARGUMENTS = [
    "run",
    TINY,
    "--config-options",
    f"max_steps:{STEPS}",
    "--override",
    ".train_step.type::AdversarialStep",
    f".train_step.adversary:{ADVERSARY}",
    ".train_step.weights:dict(l1=1.0, quantizer=1.0, adversarial=0.8)",
    ".evaluator.every:24",
    ".checkpointer.every:4",
]


@pytest.mark.slow
def test_killed_and_resumed_equals_unbroken_bit_for_bit(tmp_path: Path) -> None:
    folders = [tmp_path / name / "work_dirs" / "run" for name in ("unbroken", "killed")]
    for folder in folders:
        folder.parents[1].mkdir()
    run("train", *ARGUMENTS, cwd=folders[0].parents[1])
    reached = folders[1] / "checkpoints" / f"iter_{AFTER}"
    run_and_kill("train", ARGUMENTS, cwd=folders[1].parents[1], ranks=1, when=reached.exists, delay=0.0)
    assert not (folders[1] / "checkpoints" / f"iter_{STEPS}").exists(), "killed too late to show anything"
    run("train", *ARGUMENTS, "--auto-resume", cwd=folders[1].parents[1])
    assert "continuing from" in (folders[1] / "log.txt").read_text()

    ends = [folder / "checkpoints" / f"iter_{STEPS}" for folder in folders]
    for name in ("model.safetensors", "model_ema.safetensors"):
        expected, ours = (load_file(end / name) for end in ends)
        assert ours.keys() == expected.keys()
        assert not [k for k in ours if not torch.equal(ours[k], expected[k])], name
    states = [torch.load(end / "train_state.pt", weights_only=True) for end in ends]
    adversary = states[0]["train_step"]["adversary"]
    assert adversary["discriminator"]
    assert adversary["optimizer"]["state"]
    assert flat(states[1]) == flat(states[0])
    first = torch.load(reached / "train_state.pt", weights_only=True)["train_step"]["adversary"]
    assert flat(first["discriminator"]) != flat(adversary["discriminator"]), "the discriminator stood still"
    rows = [
        [timeless(json.loads(line)) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        for folder in folders
    ]
    assert rows[0] == rows[1]
