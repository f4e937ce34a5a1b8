"""VQ-KD, Cluster and a decoder on a frozen tokenizer: killed and resumed, each ends as an unbroken run does."""

import json
from pathlib import Path

import pytest
import torch
from commands import run, run_and_kill
from safetensors.torch import load_file
from test_resume import flat, timeless

STEPS, AFTER = 16, 4
SMALL = [
    ".train_data.batch_size:8",
    ".val_data.dataset:dict(type='vq.data.EmojiDataset', split='val')",
    ".trainer.log_every:1",
    ".evaluator.every:16",
    ".checkpointer.every:4",
    ".checkpointer.keep:None",
]
"""A few steps of a page; k-means starts from the first batch, so a codebook that began anew would show."""
PAGES = {
    "vqkd/256_emoji": ["codebook_size:32"],
    "cluster/256_emoji": ["codebook_size:32"],
    "cluster/256_gradient_emoji": ["codebook_size:32"],
    "decoder/emoji": ["codebook_size:32", "it_state_dict::work_dirs/cluster"],
}


def arguments(page: str, name: str, steps: int) -> list[str]:
    metrics = [".evaluator.metrics:[dict(type='vq.metrics.CodebookUsage', codebook_size=32)]"]
    options = ["--config-options", f"max_steps:{steps}", *PAGES[page]]
    return [name, page, *options, "--override", *SMALL, *metrics]


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("page", PAGES)
def test_killed_and_resumed_equals_unbroken_bit_for_bit(page: str, ranks: int, tmp_path: Path) -> None:
    if page.startswith("decoder"):
        run("train", *arguments("cluster/256_emoji", "cluster", 4), cwd=tmp_path)
    run("train", *arguments(page, "unbroken", STEPS), cwd=tmp_path, ranks=ranks)
    killed = tmp_path / "work_dirs" / "killed"
    reached = killed / "checkpoints" / f"iter_{AFTER}"
    given = arguments(page, "killed", STEPS)
    run_and_kill("train", given, cwd=tmp_path, ranks=ranks, when=reached.exists, delay=0.0)
    assert not (killed / "checkpoints" / f"iter_{STEPS}").exists(), "killed too late to show anything"
    run("train", *given, "--auto-resume", cwd=tmp_path, ranks=ranks)
    assert "continuing from" in (killed / "log.txt").read_text()

    folders = [tmp_path / "work_dirs" / "unbroken", killed]
    ends = [folder / "checkpoints" / f"iter_{STEPS}" for folder in folders]
    for name in ("model.safetensors", "model_ema.safetensors"):
        assert (ends[0] / name).exists() == (ends[1] / name).exists()
        if (ends[0] / name).exists():
            expected, ours = (load_file(end / name) for end in ends)
            assert ours.keys() == expected.keys()
            assert not [key for key in ours if not torch.equal(ours[key], expected[key])], name
    states = [torch.load(end / "train_state.pt", weights_only=True) for end in ends]
    assert flat(states[0]) == flat(states[1])
    rows = [
        [timeless(json.loads(line)) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        for folder in folders
    ]
    assert rows[0] == rows[1]
    first = load_file(reached / "model.safetensors")
    last = load_file(ends[1] / "model.safetensors")
    moved = {name for name in last if not torch.equal(last[name], first[name])}
    assert moved, "nothing was trained after the kill"
    assert page.startswith("decoder") == (not any("quantizer" in name for name in moved))
