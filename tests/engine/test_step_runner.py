"""Steps are a function of (seed, step, rank): they are the same in one stretch and in several."""

import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch

from vq.engine import assembly
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
