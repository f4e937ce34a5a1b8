"""A training on a GPU that is killed and resumed ends as an unbroken one; the CPU's own tests are in tests/integration.

PyTorch's deterministic algorithms are switched on, because the sums of some kernels depend on the order of threads. A
few operations have none, so weights may differ by a little.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from commands import ROOT, TINY
from gpu.devices import CUDA
from safetensors.torch import load_file

STEPS, EVERY = 40, 4
LARGEST_CHANGE = 1e-3
PROGRAM = """
import sys, torch
torch.use_deterministic_algorithms(True, warn_only=True)
from vq.train import main
main(sys.argv[1:])
"""


def started(device: str, folder: Path, *words: str) -> subprocess.Popen[str]:
    settings = [f"max_steps:{STEPS}", "--override", ".evaluator.every:20", f".checkpointer.every:{EVERY}"]
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "run", str(TINY), "--device", device, *words, "--config-options", *settings],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT), "CUBLAS_WORKSPACE_CONFIG": ":4096:8"},
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def trained(device: str, folder: Path, *words: str) -> Path:
    """Trains to the end; the run folder."""
    with started(device, folder, *words) as process:
        _, said = process.communicate(timeout=110)
    assert process.returncode == 0, said[-3000:]
    return folder / "work_dirs" / "run"


def killed(device: str, folder: Path, after: int) -> None:
    """Sends SIGKILL once the checkpoint of step `after` is there."""
    with started(device, folder) as process:
        checkpoint = folder / "work_dirs" / "run" / "checkpoints" / f"iter_{after}"
        deadline = time.monotonic() + 100
        while not checkpoint.exists():
            assert process.poll() is None, process.stderr and process.stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=30)
    assert not (checkpoint.parent / f"iter_{STEPS}").exists(), "killed too late to show anything"


def losses(run: Path) -> dict[int, float]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return {row["step"]: row["loss/total"] for row in rows if "loss/total" in row}


@pytest.mark.parametrize("device", [pytest.param("cpu", marks=pytest.mark.slow), CUDA])
def test_killed_and_resumed_ends_as_unbroken(device: str, tmp_path: Path) -> None:
    broken, whole = tmp_path / "broken", tmp_path / "whole"
    broken.mkdir(), whole.mkdir()
    killed(device, broken, 3 * EVERY)
    resumed, unbroken = trained(device, broken, "--auto-resume"), trained(device, whole)
    assert losses(resumed).keys() == losses(unbroken).keys()
    for step, loss in losses(unbroken).items():
        assert abs(losses(resumed)[step] - loss) <= LARGEST_CHANGE * abs(loss), step
    for name in ("model.safetensors", "model_ema.safetensors"):
        mine, theirs = (
            load_file(run / "checkpoints" / f"iter_{STEPS}" / name) for run in (resumed, unbroken)
        )
        for key, value in theirs.items():
            assert torch.allclose(
                mine[key].double(), value.double(), atol=LARGEST_CHANGE, rtol=LARGEST_CHANGE
            ), key
