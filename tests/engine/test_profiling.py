"""The trace of chosen steps, the table of operators, and the best scores at the end."""

import gzip
import json
import logging
import re
from pathlib import Path

import pytest
import torch
from commands import TINY, accepted

from vq.engine.callbacks import BestScores, MetricsFile, Profile
from vq.engine.callbacks.recording import NUM_OPERATORS
from vq.parsing import UsageError
from vq.train import arguments

PICTURE = torch.zeros(3, 2, 2, dtype=torch.uint8)


def test_vq_train_writes_a_trace_and_the_longest_operators(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    said = accepted("train", "run", TINY, "--config-options", "max_steps:3", "--profile", "2-2")
    (file,) = Path("work_dirs/run/profile").iterdir()
    assert file.name == "steps_2-2.json.gz"
    events = json.loads(gzip.decompress(file.read_bytes()))["traceEvents"]
    convolutions = [event for event in events if event.get("name") == "aten::convolution"]
    assert all(event["ph"] == "X" and event["dur"] > 0 for event in convolutions)
    assert len({event["name"] for event in events}) > NUM_OPERATORS
    lines = [line for line in said.splitlines() if " ms " in line]
    assert len(lines) == NUM_OPERATORS
    times = [float(line.split(" ms ")[0].split()[-1]) for line in lines]
    assert times == sorted(times, reverse=True)
    assert any("aten::convolution" in line or "aten::mkldnn_convolution" in line for line in lines)
    assert "the trace of these steps is work_dirs/run/profile/steps_2-2.json.gz" in said
    assert "best scores: psnr " in said


def test_a_training_that_ends_earlier(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    short = Profile(directory=tmp_path, first=1, last=9)
    never = Profile(directory=tmp_path, first=5, last=9)
    with caplog.at_level(logging.INFO):
        for callback in (short, never):
            callback.on_start(40, 50)
            callback.on_step_end(41)
            callback.on_step_end(42)
            callback.on_end(42)
    assert [file.name for file in (tmp_path / "profile").iterdir()] == ["steps_1-2.json.gz"]
    assert caplog.records[-1].message.startswith("--profile: training ended after 2 steps, before step 5")


@pytest.mark.parametrize(
    ("words", "steps"),
    [(["--profile"], (11, 13)), (["--profile", "20-25"], (20, 25)), (["--profile", "7"], (7, 7)), ([], None)],
)
def test_steps(words: list[str], steps: tuple[int, int] | None) -> None:
    assert arguments().parse_args(["run", "page.py", *words]).profile == steps


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("emoji", "expected steps such as 11-13, got 'emoji'; put NAME and CONFIG before --profile"),
        ("5-", "expected steps such as 11-13, got '5-'"),
        ("13-11", "expected FIRST-LAST with 1 <= FIRST <= LAST, got '13-11'"),
        ("0", "expected FIRST-LAST with 1 <= FIRST <= LAST, got '0'"),
    ],
)
def test_other_words_are_refused(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=re.escape(f"argument --profile: {said}")):
        arguments().parse_args(["run", "page.py", "--profile", text])


def test_a_trace_without_steps_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected steps with 1 <= first <= last, got first=3, last=2"):
        Profile(directory=tmp_path, first=3, last=2)


def test_the_best_scores_are_those_of_the_whole_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    metrics = MetricsFile(directory=tmp_path)
    best = BestScores(directory=tmp_path, directions={"psnr": True, "fid": False, "lpips": False})
    with caplog.at_level(logging.INFO):
        best.on_end(0)
        for step, psnr, fid in ((2, 20.0, 9.0), (4, 22.5, 8.0), (6, float("nan"), 7.5), (8, 22.5, 8.0)):
            metrics.on_evaluation_end(step, {"psnr": psnr, "fid": fid, "usage": 1.0}, PICTURE)
        best.on_end(8)
    assert [record.message for record in caplog.records] == [
        "best scores: psnr 22.5 at step 4, fid 7.5 at step 6"
    ]
