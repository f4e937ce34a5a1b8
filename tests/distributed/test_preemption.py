"""A training of several ranks that is stopped by signals, again and again, ends with the weights of an unbroken one."""

import os
import re
import shutil
import signal
import subprocess
import time
import uuid
from pathlib import Path

import pytest
import torch
from commands import MARK, TINY, TORCHRUN_STOPPED, command, environment, processes, run
from safetensors.torch import load_file

from vq.engine.strategies.fsdp2 import is_supported

pytestmark = pytest.mark.slow
DIVIDED = """
_base_ = "tiny_page.py"
from vq.engine import FSDP2

train_step = dict(strategy=dict(type=FSDP2))
"""
STEPS = 40
OPTIONS = [
    "--config-options", f"max_steps:{STEPS}", "--override", ".checkpointer.every:4", f".evaluator.every:{STEPS}",
]  # fmt: skip
SIGNALS = {2: (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1), 4: (signal.SIGUSR1, signal.SIGTERM)}
CASES = [
    pytest.param(page, ranks, id=f"{page.removesuffix('.py')}-{ranks}", marks=marks)
    for page, marks in (
        ("copied.py", ()),
        ("divided.py", pytest.mark.skipif(not is_supported(), reason="this torch is too old for FSDP2")),
    )
    for ranks in (2, 4)
]


def folder_with_pages(parent: Path, name: str) -> Path:
    folder = parent / name
    folder.mkdir()
    shutil.copy(TINY, folder / "tiny_page.py")
    (folder / "copied.py").write_text('_base_ = "tiny_page.py"\n')
    (folder / "divided.py").write_text(DIVIDED)
    return folder


def started(folder: Path, page: str, ranks: int, *options: str) -> tuple["subprocess.Popen[str]", str]:
    """A training under a torchrun that passes SIGUSR1 on too, and the mark of its processes."""
    mark = uuid.uuid4().hex
    words = command("train", "run", page, *OPTIONS, *options, ranks=ranks)
    handled = "--signals-to-handle=SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1"
    words.insert(words.index("--standalone"), handled)
    process = subprocess.Popen(
        words, cwd=folder, env=environment(**{MARK: mark}), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )  # fmt: skip
    return process, mark


def wait_for_step(folder: Path, step: int, process: "subprocess.Popen[str]") -> None:
    deadline = time.monotonic() + 120
    while not (folder / f"work_dirs/run/checkpoints/iter_{step}").exists():
        assert process.poll() is None, process.communicate()[1][-3000:]
        assert time.monotonic() < deadline, f"step {step} was not saved"
        time.sleep(0.01)


def newest(folder: Path) -> Path:
    found = (folder / "work_dirs/run/checkpoints").glob("iter_*")
    return max(found, key=lambda path: int(path.name.removeprefix("iter_")))


def stop(folder: Path, page: str, ranks: int, number: signal.Signals, *, after: int) -> int:
    """Starts or continues the training, and sends it a signal after a step; the step at which it ends."""
    process, mark = started(folder, page, ranks, "--auto-resume")
    wait_for_step(folder, after, process)
    asked_at, since = time.time(), time.monotonic()
    process.send_signal(number)
    _, said = process.communicate(timeout=90)
    seconds = time.monotonic() - since
    assert process.returncode in TORCHRUN_STOPPED, said[-3000:]
    assert f"{number.name} asked for it" in said, said[-3000:]
    assert said.count(f"\nstopped by {number.name}\n") == 1, said[-3000:]
    assert "Traceback" not in said.partition("stopped by")[0]
    saved = newest(folder)
    saved_in = saved.stat().st_mtime - asked_at
    print(f"{page} {ranks} ranks {number.name}: saved {saved_in:.1f} s, ended {seconds:.1f} s later")  # noqa: T201
    assert saved_in < 10  # the interpreters end later, one after the other on a machine with few cores
    assert not processes(mark)
    assert not list(folder.rglob("*.partial"))
    return int(saved.name.removeprefix("iter_"))


def assert_equal_weights(folders: list[Path]) -> None:
    ends = [folder / f"work_dirs/run/checkpoints/iter_{STEPS}" for folder in folders]
    for name in ("model.safetensors", "model_ema.safetensors"):
        expected, ours = (load_file(end / name) for end in ends)
        assert ours.keys() == expected.keys()
        assert not [key for key in ours if not torch.equal(ours[key], expected[key])], name


@pytest.mark.timeout(1500)
@pytest.mark.parametrize(("page", "ranks"), CASES)
def test_signals_in_turn_change_nothing(page: str, ranks: int, tmp_path: Path) -> None:
    unbroken, broken = (folder_with_pages(tmp_path, name) for name in ("unbroken", "broken"))
    run("train", "run", page, *OPTIONS, cwd=unbroken, ranks=ranks, timeout=400)
    step = 0
    for number in SIGNALS[ranks]:
        step = stop(broken, page, ranks, number, after=4 * (step // 4 + 1))
        assert step < STEPS, "stopped too late to show anything"
    said = run("train", "run", page, *OPTIONS, "--auto-resume", cwd=broken, ranks=ranks, timeout=400).stderr
    assert f"{step} steps are done" in said
    assert_equal_weights([unbroken, broken])


def process_of(mark: str, rank: int) -> int:
    wanted = f"RANK={rank}".encode()
    (found,) = [
        process
        for process in processes(mark)
        if wanted in Path(f"/proc/{process}/environ").read_bytes().split(b"\0")
    ]
    return found


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("page", "ranks"), [CASES[0], CASES[-1]])
def test_one_message_names_the_rank_that_died(page: str, ranks: int, tmp_path: Path) -> None:
    folder = folder_with_pages(tmp_path, "run")
    process, mark = started(folder, page, ranks)
    wait_for_step(folder, 4, process)
    victim = process_of(mark, ranks - 1)
    since = time.monotonic()
    os.kill(victim, signal.SIGKILL)
    _, said = process.communicate(timeout=60)
    assert time.monotonic() - since < 30
    words = rf"rank {ranks - 1} \(process {victim} on .*\) has died without a message: it was killed, "
    assert re.findall(r"^error: .*", said, re.M) == re.findall(f"^error: {words}.*", said, re.M)
    assert len(re.findall(f"^error: {words}", said, re.M)) == 1, said[-3000:]
    assert "stopped by" not in said
    assert "Connection closed by peer" not in said
    assert said.count("Traceback") == 1, said[-3000:]  # torchrun's own
    assert re.match(words, (folder / "work_dirs/run/run.ended").read_text())
    assert not processes(mark)
