"""FSDP2 on four ranks, and on two machines that are two torchruns here, connected by a port of this one."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from commands import TINY, environment, run, run_and_stop
from safetensors.torch import load_file

from vq.engine.strategies.fsdp2 import is_supported

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not is_supported(), reason="this torch is too old for FSDP2"),
]
HERE = Path(__file__).parent
PAGE = """
_base_ = "tiny_page.py"
from vq.engine import FSDP2

train_step = dict(strategy=dict(type=FSDP2, shards=2), checkpoint_activations=True)
"""


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "words", [("fsdp_ranks.py", "4"), ("divided_networks.py",)], ids=["steps", "networks"]
)
def test_divided_models_move_as_copies_do(words: tuple[str, ...]) -> None:
    """Every kind of step on four ranks with its checkpoints, also as two copies; every kind of network on two."""
    result = subprocess.run(
        [sys.executable, *words],
        cwd=HERE,
        env=os.environ | {"PYTHONPATH": f"{HERE.parents[1]}:{HERE.parent}", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=590,
    )
    assert result.returncode == 0, result.stdout + result.stderr


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def losses_of(file: Path) -> list[float]:
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    return [row["loss/total"] for row in rows if "loss/total" in row]


@pytest.mark.timeout(300)
def test_two_machines_with_a_copy_each_train_as_four_ranks_of_one(tmp_path: Path) -> None:
    shutil.copy(TINY, tmp_path / "tiny_page.py")
    (tmp_path / "page.py").write_text(PAGE)
    port = free_port()
    machines = [
        subprocess.Popen(
            [
                *(sys.executable, "-m", "torch.distributed.run", "--nnodes=2", f"--node-rank={number}"),
                *("--nproc-per-node=2", "--master-addr=127.0.0.1", f"--master-port={port}"),
                *("-m", "vq.train", "divided", "page.py"),
            ],
            cwd=tmp_path,
            env=environment(GLOO_SOCKET_IFNAME="lo"),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]
    said = [machine.communicate(timeout=250)[1] for machine in machines]
    assert [machine.returncode for machine in machines] == [0, 0], "\n".join(said)
    run("train", "plain", "tiny_page.py", cwd=tmp_path, ranks=4)
    losses = [losses_of(tmp_path / "work_dirs" / name / "metrics.jsonl") for name in ("divided", "plain")]
    assert len(losses[0]) == 4
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    for name in ("model.safetensors", "model_ema.safetensors"):
        divided, plain = (
            load_file(tmp_path / "work_dirs" / run_name / "checkpoints" / "iter_8" / name)
            for run_name in ("divided", "plain")
        )
        assert divided.keys() == plain.keys()
        for key, value in plain.items():
            # Adam divides by the size of a gradient, also where the gradient is rounding, as of a bias before a norm.
            torch.testing.assert_close(divided[key], value, atol=1e-4, rtol=0)


@pytest.mark.timeout(300)
def test_a_stopped_training_continues_without_dividing(tmp_path: Path) -> None:
    """SIGTERM saves the step; one process continues from it, and so do two that divide the model."""
    shutil.copy(TINY, tmp_path / "tiny_page.py")
    (tmp_path / "page.py").write_text(PAGE)
    long = ["--override", ".trainer.max_steps:100000"]
    first = tmp_path / "work_dirs" / "run" / "checkpoints" / "iter_2"
    run_and_stop(
        ["train", "run", "page.py", *long],
        signal.SIGTERM,
        cwd=tmp_path,
        when=lambda _: first.is_dir(),
        ranks=2,
    )
    step = newest(first.parent)
    for page, ranks in (("tiny_page.py", 1), ("page.py", 2)):
        end = [f".trainer.max_steps:{step + 2}"]
        said = run(
            "train", "run", page, "--auto-resume", "--override", *end, cwd=tmp_path, ranks=ranks
        ).stderr
        assert f"{step} steps are done" in said
        step += 2
        assert newest(first.parent) == step


def newest(folder: Path) -> int:
    return max(int(path.name.removeprefix("iter_")) for path in folder.glob("iter_*"))
