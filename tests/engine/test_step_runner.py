"""Steps are a function of (seed, step, rank): in stretches, and in a league, they are those of `vq.train`."""

import json
import logging
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import accepted
from safetensors.torch import load_file

from vq.engine import assembly
from vq.engine.jobs import league
from vq.engine.loop.step_runner import StepRunner

Tree = dict[str, Any]
GUMBEL = {"type": "GumbelQuantizer", "size": 16, "dim": 4}


def runner(tree: Tree, seed: int) -> StepRunner:
    step = assembly.make_step(tree, assembly.make_tokenizer(tree, seed=1).train(), seed=1)
    return StepRunner(train_step=step, data=assembly.make_loader(tree, "train_data"), seed=seed)


def losses(runner: StepRunner, start: int, stop: int) -> list[float]:
    return [float(result.scalars["loss/total"]) for result in runner.run(start, stop=stop)]


def test_two_stretches_are_one(tree: Callable[..., Tree]) -> None:
    drawing = tree(tokenizer__quantizer=GUMBEL, trainer__max_steps=9)
    whole, split = runner(drawing, 3), runner(drawing, 3)
    expected = losses(whole, 0, 9)  # more than an epoch of 8 batches
    assert losses(split, 0, 5) + losses(split, 5, 9) == expected
    assert losses(runner(drawing, 4), 0, 1) != expected[:1]
    assert all(
        torch.equal(a, b)
        for a, b in zip(split.train_step.model.parameters(), whole.train_step.model.parameters(), strict=True)
    )


def test_a_result_counts_its_own_step_and_times(tree: Callable[..., Tree]) -> None:
    results = list(runner(tree(), 0).run(2, stop=4))
    assert [result.step for result in results] == [3, 4]
    assert results[0].started < results[0].started + results[0].data_seconds < results[1].started


@pytest.mark.parametrize("name", ["revival", "gumbel"])
def test_a_contestant_is_the_run_that_vq_train_makes(
    name: str, tree: Callable[..., Tree], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    page = tree(train_step__accumulate=2)
    page["evaluator"]["metrics"].append({"type": "MSEMetric"})
    page["contestants"] = {"revival": page["tokenizer"]["quantizer"], "gumbel": GUMBEL}
    config = league.run_config(page, name, 6)
    Path("page.json").write_text(json.dumps(config))
    accepted("train", "run", "page.json", "--seed", 3, "--override", ".trainer.log_every:1")
    row = league.train_contestant(page, name, 3, 6)
    trained = league.train(config, 3).step

    stored = load_file("work_dirs/run/checkpoints/iter_6/model.safetensors")
    assert all(torch.equal(tensor, stored[key]) for key, tensor in trained.model.state_dict().items())
    rows = [json.loads(line) for line in Path("work_dirs/run/metrics.jsonl").read_text().splitlines()]
    assert row["last_loss"] == pytest.approx(
        statistics.mean(r["loss/total"] for r in rows if r["split"] == "train"), rel=1e-12
    )
    scores = {key: value for key, value in rows[-1].items() if key not in ("step", "split")}
    assert rows[-1]["split"] == "val"
    assert {key: row[key] for key in scores} == scores


def test_an_image_that_cannot_be_decoded_is_logged_once(
    tree: Callable[..., Tree], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    made = runner(tree(), 0)
    real = type(made.data).train_batches

    def broken(*arguments: Any, **keywords: Any) -> Any:
        return ({**batch, "undecodable": ["a.png"]} for batch in real(*arguments, **keywords))

    monkeypatch.setattr(type(made.data), "train_batches", broken)
    with caplog.at_level(logging.WARNING):
        list(made.run(stop=3))
    assert [r.message for r in caplog.records] == [
        "a.png cannot be decoded; the next image replaces it (1 so far)"
    ]
