"""Run by test_checkpoint_background.py: when rank 0 cannot write a checkpoint, both ranks find out and save again."""

import sys
import tempfile
from functools import partial
from pathlib import Path

import pytest
from commands import TINY
from forked_ranks import run_on_ranks

from vq import config
from vq.engine import assembly
from vq.engine.loop.checkpoint_files import Content
from vq.engine.loop.checkpointer import SaveError
from vq.engine.loop.launch import Machine
from vq.tokenizers.manifest import verify

CHANGES = {".trainer.max_steps": 8, ".trainer.log_every": 1, ".checkpointer.every": 3, ".evaluator.every": 8}


def run_rank(rank: int, size: int, folder: Path) -> None:
    tree = config.load(TINY, overrides=CHANGES).to_dict()
    machine = Machine(device="cpu", rank=rank, world_size=size, threads=1, autocast=False)
    step = assembly.make_step(tree, assembly.make_tokenizer(tree))
    trainer = assembly.make_trainer(tree, folder / "run", step, machine, seed=0)
    saved: list[int] = []
    start = trainer.checkpointer.start_saving
    write = Content.write

    def count_and_start(train_step: object, number: int) -> None:
        saved.append(number)
        start(train_step, number)

    def write_but_not_the_first(self: Content, *arguments: object, **named: object) -> None:
        if self.step == 3:
            raise OSError(28, "No space left on device")
        write(self, *arguments, **named)

    trainer.checkpointer.start_saving = count_and_start
    Content.write = write_but_not_the_first
    trainer.fit()
    # When the failure was found out depends on the moment, but all ranks must have acted at the same steps.
    assert saved in ([3, 4, 6, 8], [3, 5, 6, 8], [3, 6, 8]), saved
    assert {path.name for path in (folder / "run" / "checkpoints").iterdir()} == {
        f"iter_{number}" for number in saved[1:]
    }
    assert all(verify(path) is None for path in (folder / "run" / "checkpoints").iterdir())

    def never(self: Content, *arguments: object, **named: object) -> None:
        raise OSError(28, "No space left on device")

    Content.write = never
    with pytest.raises(SaveError, match="iter_9: could not be saved: the disk is full"):
        trainer.checkpointer.save(trainer.train_step, 9)


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        return run_on_ranks(partial(run_rank, folder=Path(folder)), 2)


if __name__ == "__main__":
    sys.exit(main())
