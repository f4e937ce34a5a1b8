"""What is wrong with the processes of a training is said once for all of them, before the training begins."""

import re
from pathlib import Path

import pytest
import torch
from commands import TINY, run

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("words", "ranks", "message"),
    [
        ([], 3, r"train_data: .* divisible by 3 rank\(s\) x 1 micro-batch\(es\), got 8; use a multiple of 3"),
        pytest.param(
            ["--device", "cuda"],
            2,
            "--device cuda: there is no GPU that torch .* can use; use --device cpu",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU"),
        ),
    ],
    ids=["a world size that does not divide the batch", "NCCL without GPUs"],
)
def test_one_message_of_all_processes(words: list[str], ranks: int, message: str, tmp_path: Path) -> None:
    said = run("train", "run", TINY, *words, cwd=tmp_path, ranks=ranks, expect=1).stderr
    errors = re.findall(r"^error: .*", said, re.M)
    assert len(errors) == 1, said
    assert re.match(f"error: {message}", errors[0])
    assert said.count("Traceback") == 1  # torchrun's own
    assert not list(tmp_path.rglob("checkpoints"))
