"""Which checkpoints stay: the newest, those at a round step, and the best by a score."""

from collections.abc import Callable
from pathlib import Path

import pytest

from vq.engine import Checkpointer, ReconstructionStep, Trainer, assembly
from vq.engine.loop.launch import Machine
from vq.errors import ConfigError

Make = Callable[..., ReconstructionStep]
Tree = dict
MACHINE = Machine(device="cpu", rank=0, world_size=1, threads=1, autocast=False)


def names(checkpointer: Checkpointer) -> set[str]:
    return {p.name for p in checkpointer.directory.iterdir()}


def keeping(directory: Path, *, is_higher_better: bool = True, **rules: object) -> Checkpointer:
    made = Checkpointer(directory=directory, config={}, every=1, **rules)
    if made.keep_best is not None:
        made.rank_by({made.keep_best: is_higher_better}, validates_every=1)
    return made


def save(
    checkpointer: Checkpointer, step: ReconstructionStep, number: int, psnr: float | None = None
) -> None:
    checkpointer.save(step, number)
    if psnr is not None:
        checkpointer.write_scores(number, {"psnr": psnr})


def test_those_at_a_round_step_stay(make_step: Make, tmp_path: Path) -> None:
    step, checkpointer = make_step(), keeping(tmp_path, keep=2, keep_every=4)
    for number in range(1, 12):
        save(checkpointer, step, number)
    assert names(checkpointer) == {"iter_4", "iter_8", "iter_10", "iter_11"}
    resumed = keeping(tmp_path, keep=1, keep_every=8)  # the rules of the present config count
    resumed.begin(step, resumed.restore(step, tmp_path / "iter_11"), 100)
    save(resumed, step, 12)
    resumed.confirm(13)
    assert names(resumed) == {"iter_8", "iter_12"}


@pytest.mark.parametrize(("is_higher_better", "best"), [(True, "iter_2"), (False, "iter_4")])
def test_the_best_stays_and_is_known_after_a_resume(
    make_step: Make, tmp_path: Path, is_higher_better: bool, best: str
) -> None:
    step = make_step()
    rules = {"keep": 1, "keep_best": "psnr", "is_higher_better": is_higher_better}
    checkpointer = keeping(tmp_path, **rules)
    for number, psnr in ((1, 20.0), (2, 30.0), (3, float("nan")), (4, 10.0), (5, 25.0)):
        save(checkpointer, step, number, psnr)
    save(checkpointer, step, 6)  # not validated yet
    assert names(checkpointer) == {best, "iter_5", "iter_6"}
    resumed = keeping(tmp_path, **rules)
    resumed.begin(step, resumed.restore(step, tmp_path / "iter_6"), 100)
    for number, psnr in ((7, 26.0), (8, 24.0)):
        save(resumed, step, number, psnr)
    resumed.confirm(9)
    assert names(resumed) == {best, "iter_8"}


def test_a_new_best_replaces_the_old_one_at_once_and_an_equal_one_does_not(
    make_step: Make, tmp_path: Path
) -> None:
    step, checkpointer = make_step(), keeping(tmp_path, keep=2, keep_best="psnr")
    for number, psnr in ((1, 30.0), (2, 20.0), (3, 20.0), (4, 30.0)):
        save(checkpointer, step, number, psnr)
    assert names(checkpointer) == {"iter_1", "iter_3", "iter_4"}
    save(checkpointer, step, 5)
    checkpointer.write_scores(5, {"psnr": 31.0})
    assert names(checkpointer) == {"iter_4", "iter_5"}


def test_a_damaged_best_is_not_the_best(make_step: Make, tmp_path: Path) -> None:
    step, checkpointer = make_step(), keeping(tmp_path, keep=1, keep_best="psnr")
    for number, psnr in ((1, 30.0), (2, 28.0), (3, 20.0)):
        save(checkpointer, step, number, psnr)
    (tmp_path / "iter_1" / "train_state.pt").write_bytes(b"torn")
    save(checkpointer, step, 4, 10.0)
    save(checkpointer, step, 5, 10.0)
    assert "iter_1" not in names(checkpointer)
    assert checkpointer.newest_valid() == tmp_path / "iter_5"


def test_a_training_keeps_its_best_checkpoint(tree: Callable[..., Tree], tmp_path: Path) -> None:
    rules = {"checkpointer__keep": 1, "checkpointer__keep_best": "psnr", "evaluator__every": 2}
    loaded = tree(trainer__max_steps=8, **rules)
    step = assembly.make_step(loaded, assembly.make_tokenizer(loaded))
    trainer: Trainer = assembly.make_trainer(loaded, tmp_path, step, MACHINE, seed=0)
    psnr = iter([10.0, 40.0, 20.0, 30.0])
    trainer.validation.run = lambda model: ({"psnr": next(psnr)}, None)  # type: ignore[method-assign]
    trainer.callback.on_evaluation_end = lambda *_: None  # type: ignore[method-assign]
    trainer.fit()
    assert names(trainer.checkpointer) == {"iter_4", "iter_8"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"keep_best": "fid"}, r"keep_best: expected .*\(codebook_usage, entropy_bits, perplexity, psnr\), got"),
        ({"every": 3, "keep_best": "psnr"}, "every 4 steps .*saved every 3.* a multiple of checkpointer.every"),
    ],
)  # fmt: skip
def test_a_score_that_cannot_be_used_is_refused_before_training(
    tree: Callable[..., Tree], tmp_path: Path, changes: dict, message: str
) -> None:
    loaded = tree(checkpointer__keep=1, **{f"checkpointer__{key}": value for key, value in changes.items()})
    step = assembly.make_step(loaded, assembly.make_tokenizer(loaded))
    with pytest.raises(ConfigError, match=message):
        assembly.make_trainer(loaded, tmp_path, step, MACHINE, seed=0).prepare()
    assert not (tmp_path / "checkpoints").exists()


def test_rules_that_do_not_fit_each_other() -> None:
    with pytest.raises(ValueError, match="keep_every: expected a multiple of every=2, got 3"):
        Checkpointer(directory=Path(), config={}, every=2, keep=1, keep_every=3)
    with pytest.raises(ValueError, match="expected keep with keep_every or keep_best, got keep=None"):
        Checkpointer(directory=Path(), config={}, every=2, keep_best="psnr")


def test_without_the_direction_of_the_score_nothing_is_removed(make_step: Make, tmp_path: Path) -> None:
    checkpointer = Checkpointer(directory=tmp_path, config={}, every=1, keep=1, keep_best="psnr")
    with pytest.raises(RuntimeError, match=r"expected the direction of keep_best='psnr'.*call rank_by"):
        checkpointer.save(make_step(), 1)
    assert names(checkpointer) == {"iter_1"}
