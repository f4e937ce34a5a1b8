"""Checkpoints are written while training goes on, and are the same as if it had waited."""

import json
import os
import resource
import signal
import subprocess
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import TINY, environment
from safetensors.torch import load_file

from vq.engine import Checkpointer, ReconstructionStep, Trainer, assembly
from vq.engine.loop.checkpoint_files import Content
from vq.engine.loop.checkpoint_writer import BackgroundJobs, HostMemory
from vq.engine.loop.checkpointer import SaveError
from vq.engine.loop.launch import Machine
from vq.engine.loop.stopping import Stopped
from vq.tokenizers.manifest import verify

Make = Callable[..., ReconstructionStep]
Tree = dict
HERE = Path(__file__).parent
MACHINE = Machine(device="cpu", rank=0, world_size=1, threads=1, autocast=False)


def names(directory: Path) -> set[str]:
    return {p.name for p in directory.iterdir()}


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Writing a checkpoint waits until this event is set."""
    event, write = threading.Event(), Content.write

    def wait_and_write(self: Content, *arguments: Any, **named: Any) -> None:
        assert event.wait(60)
        write(self, *arguments, **named)

    monkeypatch.setattr(Content, "write", wait_and_write)
    return event


def test_what_the_step_changes_meanwhile_is_not_in_the_checkpoint(
    make_step: Make, tmp_path: Path, gate: threading.Event
) -> None:
    step = make_step()
    expected = {name: tensor.clone() for name, tensor in step.model.state_dict().items()}
    checkpointer = Checkpointer(directory=tmp_path, config={}, every=1)
    checkpointer.arguments["seed"] = 7
    checkpointer.start_saving(step, 1)
    assert not checkpointer.is_saved()
    assert names(tmp_path) == {"iter_1.partial"}
    with torch.no_grad():
        for tensor in [*step.model.parameters(), *step.weight_ema.average.values()]:
            tensor.add_(1)
    checkpointer.write_scores(1, {"psnr": 20.0})  # as soon as there is something to score
    checkpointer.arguments["seed"] = 8
    threading.Timer(0.2, gate.set).start()
    assert checkpointer.to_resume() == tmp_path / "iter_1"
    assert checkpointer.is_saved(wait=True)
    assert json.loads((tmp_path / "iter_1" / "arguments.json").read_text()) == {"seed": 7}
    assert verify(tmp_path / "iter_1") is None
    assert (tmp_path / "iter_1" / "validation.json").exists()
    for file in ("model.safetensors", "model_ema.safetensors"):
        found = load_file(tmp_path / "iter_1" / file)
        assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_a_later_save_does_not_overwrite_what_is_being_written(
    make_step: Make, tmp_path: Path, gate: threading.Event
) -> None:
    step = make_step()
    checkpointer = Checkpointer(directory=tmp_path, config={}, every=1)
    checkpointer.start_saving(step, 1)
    parameter = next(step.model.parameters())
    before = parameter.detach().clone()
    with torch.no_grad():
        parameter.add_(1)
    opener = threading.Timer(0.2, gate.set)
    opener.start()
    checkpointer.start_saving(step, 2)  # waits
    assert names(tmp_path) == {"iter_1", "iter_2.partial"} or names(tmp_path) == {"iter_1", "iter_2"}
    checkpointer.is_saved(wait=True)
    name = next(name for name, _ in step.model.named_parameters())
    saved = [load_file(tmp_path / f"iter_{n}" / "model.safetensors")[name] for n in (1, 2)]
    assert torch.equal(saved[0], before)
    assert torch.equal(saved[1], before + 1)


def test_killed_in_the_middle_the_last_good_one_remains(tmp_path: Path) -> None:
    code = f"""
import os, signal, sys
from pathlib import Path
from vq import config
from vq.engine import Checkpointer, assembly
from vq.engine.loop import checkpoint_files
tree = config.load({str(TINY)!r}).to_dict()
step = assembly.make_step(tree, assembly.make_tokenizer(tree))
saver = Checkpointer(directory=Path("checkpoints"), config=tree, every=1, keep=1)
saver.save(step, 1)
written = checkpoint_files.write_manifest
checkpoint_files.write_manifest = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
saver.start_saving(step, 2)
saver.is_saved(wait=True)
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    directory = tmp_path / "checkpoints"
    assert names(directory) == {"iter_1", "iter_2.partial"}
    assert "train_state.pt" in names(directory / "iter_2.partial")  # all but the manifest
    checkpointer = Checkpointer(directory=directory, config={}, every=1)
    assert checkpointer.to_resume() == directory / "iter_1"


def trainer(tree: Tree, run: Path) -> Trainer:
    step = assembly.make_step(tree, assembly.make_tokenizer(tree))
    return assembly.make_trainer(tree, run, step, MACHINE, seed=0)


def after_each_step(made: Trainer, do: Callable[[int], None]) -> None:
    inner = made.callback.on_step_end

    def both(step: int) -> None:
        inner(step)
        do(step)

    made.callback.on_step_end = both  # type: ignore[method-assign]


def test_training_goes_on_while_a_checkpoint_is_written_and_ends_with_it(
    tree: Callable[..., Tree], tmp_path: Path, gate: threading.Event
) -> None:
    made = trainer(tree(trainer__max_steps=8, checkpointer__every=5, evaluator__every=8), tmp_path)
    seen: list[set[str]] = []

    def look(step: int) -> None:
        if step == 7:
            seen.append(names(tmp_path / "checkpoints"))
            gate.set()

    after_each_step(made, look)
    made.fit()
    assert seen == [{"iter_5.partial"}]
    assert names(tmp_path / "checkpoints") == {"iter_5", "iter_8"}


def test_an_error_of_the_training_waits_for_the_checkpoint(
    tree: Callable[..., Tree], tmp_path: Path, gate: threading.Event
) -> None:
    made = trainer(tree(trainer__max_steps=8, checkpointer__every=2), tmp_path)

    def fail(step: int) -> None:
        if step == 3:
            threading.Timer(0.2, gate.set).start()
            raise RuntimeError("the power of a fan")

    after_each_step(made, fail)
    with pytest.raises(RuntimeError, match="fan"):
        made.fit()
    assert names(tmp_path / "checkpoints") == {"iter_2"}
    assert verify(tmp_path / "checkpoints" / "iter_2") is None


@contextmanager
def small_files(size: int) -> Iterator[None]:
    """Files cannot grow beyond a size, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_failed_write_is_reported_and_repeated_once_there_is_room(
    tree: Callable[..., Tree], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    changes = {"trainer__max_steps": 16, "trainer__log_every": 2, "checkpointer__every": 8}
    made = trainer(tree(**changes, evaluator__every=16), tmp_path)
    seen: dict[int, set[str]] = {}

    def look(step: int) -> None:
        if step == 7:
            full.__enter__()
        if step == 8:  # whatever is written now has failed when the next step begins
            made.checkpointer._jobs.wait()
        if step == 9:
            full.__exit__(None, None, None)
        seen[step] = names(tmp_path / "checkpoints") if step > 7 else set()

    full = small_files(20_000)
    after_each_step(made, look)
    made.fit()
    assert "iter_8: could not be saved" in caplog.text
    assert "the next log step tries again" in caplog.text
    assert not seen[9]
    written = names(tmp_path / "checkpoints")
    assert written in ({"iter_10", "iter_16"}, {"iter_12", "iter_16"})  # step 8 or 10 found out
    assert all(verify(tmp_path / "checkpoints" / name) is None for name in written)


class TestHostMemory:
    def test_copies_everything_and_uses_its_memory_again(self) -> None:
        shared = torch.rand(3)
        tree = OrderedDict(
            a=torch.rand(2, 3, 4, 4).to(memory_format=torch.channels_last),
            b=[shared, {"again": shared, "number": 3, "text": "x"}],
            c=(torch.tensor(1.5), torch.nn.Parameter(torch.rand(2))),
        )
        memory = HostMemory()
        copied = memory.copy(tree)
        assert type(copied) is OrderedDict
        assert copied["a"].stride() == tree["a"].stride()
        assert copied["b"][0] is copied["b"][1]["again"]
        assert copied["b"][1]["text"] == "x"
        pointers = [copied["a"].data_ptr(), copied["b"][0].data_ptr()]
        assert tree["a"].data_ptr() not in pointers
        assert not copied["c"][1].requires_grad
        tree["b"][1]["number"] = 4
        assert copied["b"][1]["number"] == 3
        tree["a"].add_(1)
        again = memory.copy(tree)
        assert torch.equal(again["a"], tree["a"])
        assert [again["a"].data_ptr(), again["b"][0].data_ptr()] == pointers

    def test_other_tensors_get_other_memory(self) -> None:
        memory = HostMemory()
        memory.copy({"a": torch.zeros(2)})
        for tensor in (torch.ones(3), torch.ones(3).double(), torch.ones(1, 3).double()):
            assert torch.equal(memory.copy({"a": tensor})["a"], tensor)


def assert_set(event: threading.Event) -> None:
    assert event.wait(60)


def test_jobs_are_done_in_order_and_each_error_is_raised_once() -> None:
    jobs, done, event = BackgroundJobs(), list[int](), threading.Event()

    def fail(number: int) -> None:
        raise SaveError(str(number))

    jobs.start(lambda: assert_set(event))
    jobs.do(lambda: done.append(1))
    jobs.do(lambda: fail(2))
    jobs.do(lambda: done.append(3))
    jobs.do(lambda: fail(4))
    assert not jobs.is_idle
    assert done == []
    event.set()
    jobs.wait()
    assert done == [1, 3]
    for number in (2, 4):
        with pytest.raises(SaveError, match=str(number)):
            jobs.raise_errors()
    jobs.raise_errors()
    jobs.do(lambda: done.append(threading.get_ident()))
    assert done[-1] == threading.get_ident()


def test_a_stop_signal_waits_for_the_checkpoint_of_its_step(
    tree: Callable[..., Tree], tmp_path: Path, gate: threading.Event
) -> None:
    made = trainer(tree(trainer__max_steps=50, checkpointer__every=2, evaluator__every=50), tmp_path)
    inner = made.checkpointer.start_saving

    def start_and_stop(train_step: ReconstructionStep, step: int) -> None:
        inner(train_step, step)
        threading.Timer(0.2, gate.set).start()
        os.kill(os.getpid(), signal.SIGTERM)

    made.checkpointer.start_saving = start_and_stop  # type: ignore[method-assign]
    with pytest.raises(Stopped):
        made.fit()
    assert names(tmp_path / "checkpoints") == {"iter_2"}
    assert verify(tmp_path / "checkpoints" / "iter_2") is None


@pytest.mark.slow
def test_two_ranks_find_out_together() -> None:
    done = subprocess.run(
        [sys.executable, HERE / "checkpoint_ranks.py"],
        env=os.environ | {"PYTHONPATH": f"{HERE.parents[1]}:{HERE.parent}", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert done.returncode == 0, done.stdout + done.stderr
