"""Where a command runs: what is not there is refused with its name and a cure."""

import socket
import time
from collections.abc import Iterator

import pytest
import torch

from vq import failures
from vq.engine.loop.launch import LaunchError, launched
from vq.errors import UserError


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("device", "said"),
    [
        ("gpu", "--device gpu: expected cuda, cpu, or another device of this machine, got: "),
        ("cuda:x", "--device cuda:x: expected"),
        ("", "--device : expected|--device '': expected"),
        ("meta", "--device meta: the meta device computes nothing; use cuda or cpu"),
        ("\x1b[31m", r"--device \\x1b\[31m: expected"),
        ("xla", "--device xla: expected"),
    ],
)
def test_a_device_that_is_not_there(device: str, said: str) -> None:
    with pytest.raises(LaunchError, match=said) as caught, launched(device=device):
        pass
    assert isinstance(caught.value, UserError)


@pytest.mark.parametrize("device", ["cuda", "cuda:0"])
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_no_gpu(device: str) -> None:
    said = f"--device {device}: there is no GPU that torch .* can use; use --device cpu"
    with pytest.raises(LaunchError, match=said), launched(device=device):
        pass


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_fewer_gpus_than_asked_for() -> None:
    with pytest.raises(LaunchError, match="--device cuda:99: expected"), launched(device="cuda:99"):
        pass


def test_a_port_that_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for name, value in {
            "RANK": "0",
            "WORLD_SIZE": "2",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
        }.items():
            monkeypatch.setenv(name, value)
        said = f"rank 0 of 2 cannot join the others at 127.0.0.1:{port}: .*MASTER_PORT of its own"
        with pytest.raises(LaunchError, match=said), launched(device="cpu"):
            pass


@pytest.mark.parametrize(
    ("variables", "timeout", "said"),
    [
        ({"WORLD_SIZE": "two"}, 5.0, "WORLD_SIZE: expected a number, got 'two'"),
        ({"WORLD_SIZE": "2"}, 5.0, r"rank \? of 2 cannot join the others"),
        ({}, 0.0, "--timeout: expected seconds above 0, got 0"),
        ({}, float("nan"), "--timeout: expected seconds above 0, got nan"),
    ],
)
def test_a_launcher_that_forgot_something(
    variables: dict[str, str], timeout: float, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(LaunchError, match=said), launched(device="cpu", timeout=timeout):
        pass


def test_nobody_listens_where_the_processes_meet(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # bound, but nobody listens
        port = bound.getsockname()[1]
        for name, value in {
            "RANK": "1",
            "WORLD_SIZE": "2",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
        }.items():
            monkeypatch.setenv(name, value)
        said = f"rank 1 of 2: expected the first process, or torchrun, at 127.0.0.1:{port} .* no connection for 0.5 s"
        since = time.monotonic()
        with pytest.raises(LaunchError, match=said) as caught, launched(device="cpu", timeout=0.5):
            pass
        assert time.monotonic() - since < 5
        with pytest.raises(SystemExit, match="2"), failures.reported():  # each such process says so
            raise caught.value
        assert capsys.readouterr().err.startswith("error: rank 1 of 2: expected the first process")
