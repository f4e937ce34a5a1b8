"""A VQ-KD step runs its teacher once per micro-batch, without a graph, and in bfloat16 only if `--autocast` says so."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vq import config
from vq.engine import assembly

PAGE = Path(__file__).parents[2] / "configs" / "vqkd" / "256_emoji.py"
SIZE = 32


class Calls:
    """Records each call of a teacher, and the type in which its network computes."""

    def __init__(self, teacher: nn.Module) -> None:
        self.images: list[Tensor] = []
        self.features: list[Tensor] = []
        self.types: list[torch.dtype] = []
        teacher.register_forward_hook(self._called)
        inside = teacher.features

        def watched(image: Tensor) -> Tensor:
            found = inside(image)
            self.types.append(found.dtype)
            return found

        teacher.features = watched

    def _called(self, module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        self.images.append(inputs[0])
        self.features.append(output)


def make_step(**options: Any) -> Any:
    overrides = {
        ".train_step.losses.cosine.teacher.image_size": 64,
        ".tokenizer.quantizer.codebook.size": 16,
    }
    accumulate = options.pop("accumulate", 1)
    tree = config.load(PAGE, overrides=overrides | {".train_step.accumulate": accumulate}).to_dict()
    return assembly.make_step(tree, assembly.make_tokenizer(tree), **options)


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("accumulate", [1, 3])
def test_the_teacher_runs_once_per_micro_batch(accumulate: int, autocast: bool) -> None:
    step = make_step(accumulate=accumulate, autocast=autocast)
    teacher = step.losses["cosine"].teacher
    calls = Calls(teacher)
    before = [buffer.clone() for buffer in teacher.buffers()]
    batches = [
        {"image": torch.randint(256, (4, 3, SIZE, SIZE), dtype=torch.uint8)} for _ in range(accumulate)
    ]
    step.tokenizer.train()
    scalars = step(batches, 0)
    assert [len(image) for image in calls.images] == [4] * accumulate
    assert all(features.grad_fn is None and not features.requires_grad for features in calls.features)
    assert all(features.dtype == torch.float32 for features in calls.features)
    assert calls.types == [torch.bfloat16 if autocast else torch.float32] * accumulate
    assert not teacher.training
    assert all(torch.equal(a, b) for a, b in zip(before, teacher.buffers(), strict=True))
    assert all(value.dtype == torch.float32 for name, value in scalars.items() if name.startswith("loss/"))
    step.tokenizer.eval()
    step(batches, 1)
    assert len(calls.images) == 2 * accumulate


def test_the_target_in_bfloat16_is_near_the_exact_one() -> None:
    batch = {"image": torch.randint(256, (4, 3, SIZE, SIZE), dtype=torch.uint8)}
    exact, rounded = make_step(), make_step(autocast=True)
    found = [
        torch.nn.functional.normalize(calls.features[0], dim=-1)
        for calls in (_after(step, batch) for step in (exact, rounded))
    ]
    cosine = (found[0] * found[1]).sum(dim=-1)
    assert 0 < float((1 - cosine).max()) < 0.01


def _after(step: Any, batch: Any) -> Calls:
    calls = Calls(step.losses["cosine"].teacher)
    step([batch], 0)
    return calls
