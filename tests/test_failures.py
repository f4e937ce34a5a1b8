"""How programs end: one message and exit code 2 for what a user can mend, a traceback and 1 for a defect."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from commands import ROOT, environment

from vq import packages
from vq.errors import UserError
from vq.failures import user_message

PROGRAM = """
import os, sys
from vq import cli
from vq.errors import UserError
from vq.errors import ConfigError

def command(argv):
    {body}

cli.main(command)
"""


def program(body: str, *, ranks: int = 1) -> subprocess.CompletedProcess[str]:
    start = [sys.executable]
    if ranks > 1:
        start += ["-m", "torch.distributed.run", "--standalone", "--no-python", f"--nproc-per-node={ranks}"]
        start += [sys.executable]
    return subprocess.run(
        [*start, "-c", PROGRAM.format(body=body)],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize(
    ("body", "code", "words"),
    [
        ("raise UserError('what to do')", 2, "error: what to do\n"),
        ("raise ConfigError('place: cure')", 2, "error: place: cure\n"),
        ("open('/nowhere/x')", 2, "error: /nowhere/x: there is no such file or folder\n"),
        ("open('/')", 2, "error: /: it is a folder, but a file is needed\n"),
        ("os.mkdir('README.md/x')", 2, "error: README.md/x: a part of this path is a file, not a folder"),
        ("open('/dev/full', 'w', buffering=1).write('x' * 9999)", 2, "the disk is full; free some space"),
        ("import torch_fidelityy", 2, "error: the package torch_fidelityy is not installed"),
        ("import vq.nothing", 1, "ModuleNotFoundError: No module named 'vq.nothing'"),
        ("raise ValueError('a defect')", 1, "ValueError: a defect"),
        ("raise KeyboardInterrupt", 130, "interrupted\n"),
        ("print('x' * 99999)", 0, ""),
    ],
)
def test_exit_codes(body: str, code: int, words: str) -> None:
    done = program(body)
    assert done.returncode == code, done.stderr
    assert words in done.stderr
    assert ("Traceback" in done.stderr) == (code == 1)
    if code == 2:
        assert done.stderr.count("\n") == 1


def test_a_reader_that_has_ended_ends_the_command_quietly() -> None:
    command = [sys.executable, "-c", PROGRAM.format(body="[print(i) for i in range(10**6)]")]
    with subprocess.Popen(
        command, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "0\n"
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(60) == 141


@pytest.mark.parametrize("failing", [(0, 1), pytest.param((1,), marks=pytest.mark.slow)])
def test_under_torchrun_one_process_speaks(failing: tuple[int, ...]) -> None:
    body = f"""
    import torch
    from vq import distributed
    from vq.engine.loop.launch import launched
    with launched(device="cpu"):
        if distributed.rank() in {failing}:
            raise UserError("rank %d could not" % distributed.rank())
        distributed.barrier()
    """
    done = program(body, ranks=2)
    assert done.returncode == 1  # torchrun's own
    said = [line for line in done.stderr.splitlines() if line.startswith("error: rank")]
    assert said == [f"error: rank {failing[0]} could not"]
    assert "failures.py" not in done.stderr  # no traceback but that of torchrun
    assert "exitcode  : 2" in done.stderr


def test_an_optional_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "pyarrow", raising=False)  # another test may have imported it
    error = ModuleNotFoundError("No module named 'pyarrow'", name="pyarrow.parquet")
    message = "this command needs the package pyarrow, which is not installed; "
    assert user_message(error) == message + packages.how_to_install("data")


def test_names_are_shown_on_one_line() -> None:
    error = PermissionError(errno.EACCES, "Permission denied", os.fsencode("a\nb") + b"\xe4")
    assert str(user_message(error)).startswith("a\\nb\\udce4: permission denied")
    assert user_message(UserError("x")) == "x"
    assert user_message(ZeroDivisionError()) is None


def test_a_file_that_may_not_grow_is_named() -> None:
    error = OSError(errno.EFBIG, "File too large", "shard_00001.bin")
    assert str(user_message(error)).startswith(
        "shard_00001.bin: a file may not be so large here; raise `ulimit -f`"
    )


def test_a_worker_of_a_data_loader_reports_a_missing_file_on_one_line(tmp_path: Path) -> None:
    text = f"Caught FileNotFoundError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n" \
        f"  File x\nFileNotFoundError: [Errno 2] No such file or directory: '{tmp_path}'\n"  # fmt: skip
    assert user_message(FileNotFoundError(text)) == text.splitlines()[-1]
