"""Run by test_rewind.py: two ranks skip the batches that one process skips, and name the rank of the black picture."""

import json
import sys
import tempfile
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import torch
from black_image import BLACK, trainer_of, tree_of, write_pictures
from forked_ranks import run_on_ranks
from torch import Tensor

from vq.engine import NonFiniteLossError
from vq.engine.strategies.shards import part_of

# With SGD, differences of rounding between one and two ranks stay small over ten steps.
ALIKE: dict[str, Any] = {
    "train_step__optimizer": {"type": "torch.optim.SGD", "lr": 0.02, "momentum": 0.9},
    "trainer__on_nonfinite": "rewind",
}


def trained(folder: Path, run: Path, rank: int, size: int) -> tuple[dict[str, Tensor], list[int]]:
    """The weights at the end, and the batches that were skipped."""
    trainer = trainer_of(tree_of(folder / "pictures", **ALIKE), run, rank=rank, size=size)
    trainer.fit()
    weights = {
        name: tensor.detach().clone() for name, tensor in trainer.train_step.model.state_dict().items()
    }
    return weights, list(trainer.runner.skipped)


def run_rank(rank: int, size: int, folder: Path, expected: tuple[dict[str, Tensor], list[int]]) -> None:
    weights, skipped = trained(folder, folder / "ranks", rank, size)
    assert skipped == expected[1]
    for name, tensor in expected[0].items():
        torch.testing.assert_close(weights[name], tensor, atol=1e-9, rtol=0)
    one, two = (
        [json.loads(line) for line in (folder / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("one", "ranks")
    )
    rows = [[row for row in own if row["split"] == "not_finite"] for own in (one, two)]
    assert len(rows[0]) == len(skipped)
    for mine, theirs in zip(*rows, strict=True):
        assert {k: v for k, v in mine.items() if "time" not in k} == {
            k: v for k, v in theirs.items() if "time" not in k
        }

    stopping = {**ALIKE, "trainer__on_nonfinite": "stop"}
    trainer = trainer_of(tree_of(folder / "pictures", **stopping), folder / "stopped", rank=rank, size=size)
    try:
        trainer.fit()
    except NonFiniteLossError as error:
        said = str(error)
    assert f"batch 4, rank 1: picture_04.png, {BLACK}. The last" in said, said


def run_divided_rank(rank: int, size: int, folder: Path) -> None:
    """With the model divided among the ranks, going back equals never having taken the batches, bit for bit."""
    tree = tree_of(folder / "pictures", **ALIKE, train_step__strategy={"type": "FSDP2"})
    trainer = trainer_of(tree, folder / "back", rank=rank, size=size)
    straight = trainer_of(tree, folder / "straight", rank=rank, size=size)
    scores = trainer.fit()
    assert len(trainer.runner.skipped) == 2
    straight.skip(trainer.runner.skipped)
    assert straight.fit() == scores
    expected = straight.train_step.model.state_dict()
    for name, tensor in trainer.train_step.model.state_dict().items():
        assert torch.equal(part_of(tensor), part_of(expected[name])), name


def main() -> int:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_pictures(folder / "pictures")
        if "divided" in sys.argv:
            return run_on_ranks(partial(run_divided_rank, folder=folder), 2)
        expected = trained(folder, folder / "one", 0, 1)
        return run_on_ranks(partial(run_rank, folder=folder, expected=expected), 2)


if __name__ == "__main__":
    sys.exit(main())
