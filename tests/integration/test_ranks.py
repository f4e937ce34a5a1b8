"""One rank, two ranks with half the batch each, and micro-batches: the same weights after 20 steps.

SGD passes differences of rounding on as they are. Adam divides by the gradient's own size: where a gradient is
zero but for rounding (the keys' biases in attention, exactly), sums in another order move a weight by up to
the learning rate. So the Adam runs have no attention and an eps above rounding.
"""

from pathlib import Path

import pytest
import torch
from commands import TINY, run
from safetensors.torch import load_file

STEPS = 20
COMMON = [f".checkpointer.every:{STEPS}", f".evaluator.every:{STEPS}"]
SGD = [".train_step.optimizer:dict(type='torch.optim.SGD', lr=0.05, momentum=0.9)"]
ADAM = [
    ".train_step.optimizer.eps:1e-4",
    ".tokenizer.encoder.attention:False",
    ".tokenizer.decoder.attention:False",
]
# k-means needs data before the first search, and the first micro-batch is all that is there by then.
NO_KMEANS = [".tokenizer.quantizer.codebook.init:dict(type='vq.quantizers.NormalInit')"]


def weights(
    folder: Path, name: str, overrides: list[str], *, ranks: int, accumulate: int
) -> dict[str, torch.Tensor]:
    options = ["--config-options", f"max_steps:{STEPS}", f"accumulate:{accumulate}"]
    run("train", name, TINY, *options, "--override", *COMMON, *overrides, cwd=folder, ranks=ranks)
    return load_file(folder / "work_dirs" / name / "checkpoints" / f"iter_{STEPS}" / "model.safetensors")


@pytest.mark.parametrize(
    ("overrides", "ranks", "accumulate"),
    [(SGD, 2, 1), (ADAM, 2, 1), ([*SGD, *NO_KMEANS], 2, 2)],
    ids=["2ranks-sgd", "2ranks-adam", "2ranks-2microbatches"],
)
def test_same_weights_after_20_steps(
    overrides: list[str], ranks: int, accumulate: int, tmp_path: Path
) -> None:
    expected = weights(tmp_path, "one", overrides, ranks=1, accumulate=1)
    found = weights(tmp_path, "many", overrides, ranks=ranks, accumulate=accumulate)
    assert expected.keys() == found.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(
            found[name], tensor, atol=1e-5, rtol=1e-5, msg=lambda m, n=name: f"{n}: {m}"
        )
