"""One rank, two ranks with half the batch each, and micro-batches: the same weights."""

from pathlib import Path

import pytest
import torch
from commands import TINY, run
from safetensors.torch import load_file

STEPS = 20
COMMON = ["--override", f".checkpointer.every:{STEPS}", f".evaluator.every:{STEPS}"]


def weights(folder: Path, *options: str, ranks: int) -> dict[str, torch.Tensor]:
    run(
        "train", "run", TINY, *COMMON, "--config-options", f"max_steps:{STEPS}", *options, cwd=folder, ranks=ranks
    )
    return load_file(folder / "work_dirs" / "run" / "checkpoints" / f"iter_{STEPS}" / "model.safetensors")


@pytest.fixture(scope="module")
def one_rank(tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    return weights(tmp_path_factory.mktemp("one"), ranks=1)


@pytest.mark.parametrize(
    ("ranks", "options"), [(2, []), (1, ["accumulate:2"]), (2, ["accumulate:2"])], ids=["ddp", "accumulate", "both"]
)
def test_same_weights_after_20_steps(
    one_rank: dict[str, torch.Tensor], ranks: int, options: list[str], tmp_path: Path
) -> None:
    other = weights(tmp_path, *options, ranks=ranks)
    assert one_rank.keys() == other.keys()
    for name, tensor in one_rank.items():
        torch.testing.assert_close(other[name], tensor, atol=1e-5, rtol=1e-5, msg=lambda m, n=name: f"{n}: {m}")
