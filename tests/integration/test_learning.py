"""A short training on real pictures learns: the loss falls, and the reconstruction beats a flat picture."""

import json
from pathlib import Path

import pytest
from commands import ROOT, accepted


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:FIDMetric")  # few images, as the metric says
@pytest.mark.parametrize("page", ["fsq/1000_emoji", "ema/1024_emoji"])
def test_the_loss_falls_on_emoji(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VQ_PRETRAINED", str(ROOT / "pretrained"))
    short = [".trainer.max_steps:60", ".trainer.log_every:10", ".evaluator.metrics[4].network::alex"]
    pixels = [
        ".train_step.losses:dict(l1=dict(type='vq.losses.L1Loss'))",
        ".train_step.weights:dict(l1=1.0, quantizer=1.0)",
    ]
    accepted(
        "train",
        "short",
        ROOT / "configs" / f"{page}.py",
        "--override",
        *short,
        *pixels,
        ".train_step.schedule.warmup_steps:10",
    )
    rows = [
        json.loads(line) for line in (tmp_path / "work_dirs/short/metrics.jsonl").read_text().splitlines()
    ]
    losses = [row["loss/l1"] for row in rows if row["split"] == "train"]
    assert losses[-1] < 0.7 * losses[0], losses
    scores = [row for row in rows if row["split"] == "val"][-1]
    assert scores["psnr"] > 14  # a single colour for the whole picture gets about 10
    assert scores["perplexity"] > 10  # not collapsed
