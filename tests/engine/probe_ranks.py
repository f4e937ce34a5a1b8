"""Run by test_probe.py: two ranks train and score a probe as one process does, in float64.

The ranks are forked from this process after it has computed what one process does.
"""

import sys
import warnings
from functools import partial
from typing import Any

import torch
from commands import TINY
from forked_ranks import run_on_ranks

from vq import config
from vq.engine import ProbeEvaluator, ProbeStep, assembly
from vq.engine.loop.step_runner import StepRunner
from vq.optimizers import LARS
from vq.probes import LinearProbe, PooledCodes
from vq.tokenizers import Tokenizer

STEPS = 5


def tiny(overrides: dict[str, Any] | None = None) -> dict[str, Any]:
    """The tiny page, for its data (shapes of 4 classes) and its tokenizer."""
    tree: dict[str, Any] = config.load(TINY, overrides=overrides or {}).to_dict()
    return tree


def tokenizer_of() -> Tokenizer:
    tokenizer: Any = assembly.make_tokenizer(tiny(), seed=1)
    torch.nn.init.normal_(tokenizer.quantizer.codebook.weight, generator=torch.Generator().manual_seed(0))
    made: Tokenizer = tokenizer.eval()
    return made


def probe_of() -> LinearProbe:
    torch.manual_seed(0)
    return LinearProbe(features=PooledCodes(tokenizer=tokenizer_of()), num_classes=4).double().train()


def step_of(probe: LinearProbe, lr: float = 1.6) -> ProbeStep:
    return ProbeStep(probe=probe, optimizer=partial(LARS, lr=lr, trust=0.02), weight_ema=0.9)


def batches_of(count: int) -> list[Any]:
    batches = assembly.make_loader(tiny(), "train_data").train_batches(seed=0)
    return [next(batches) for _ in range(count)]


def results() -> dict[str, Any]:
    """The weights, their average and the statistics after a few steps, and the scores of 13 images."""
    step = step_of(probe_of())
    runner = StepRunner(train_step=step, data=assembly.make_loader(tiny(), "train_data"), seed=3)
    losses = [float(result.scalars["loss/total"]) for result in runner.run(stop=STEPS)]
    found = ProbeEvaluator(top=[1, 2]).evaluate(step.probe, assembly.make_loader(tiny(), "val_data"))
    assert step.weight_ema is not None
    average = {f"average.{name}": tensor for name, tensor in step.weight_ema.average.items()}
    tensors = {name: tensor.detach().clone() for name, tensor in (step.probe.state_dict() | average).items()}
    return {"tensors": tensors, "scores": found.scores, "num_images": found.num_images, "losses": losses}


def run_rank(rank: int, size: int, expected: dict[str, Any]) -> None:
    found = results()
    for name, tensor in expected["tensors"].items():
        torch.testing.assert_close(
            found["tensors"][name], tensor, atol=1e-9, rtol=0, msg=f"{size} ranks: {name}"
        )
    assert found["num_images"] == expected["num_images"] == 13
    assert found["scores"].keys() == expected["scores"].keys()
    for name, value in expected["scores"].items():
        assert abs(found["scores"][name] - value) < 1e-9, f"{size} ranks: {name}"


def main() -> int:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    expected = results()
    assert expected["losses"][-1] != expected["losses"][0]
    return run_on_ranks(partial(run_rank, expected=expected), 2)


if __name__ == "__main__":
    sys.exit(main())
