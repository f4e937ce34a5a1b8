"""Between two log steps the host never waits for the device."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from commands import TINY
from contract.quantizer_cases import CASES, vectors
from gpu.devices import CUDA
from gpu.waiting import WaitingError, without_waiting
from torch import Tensor

from vq import config
from vq.engine import TrainStep, assembly
from vq.losses import LPIPSLoss

SIDE = 32
ADAM = {"type": "torch.optim.AdamW", "lr": 1e-3}
ADVERSARY = {
    "type": "Adversary",
    "discriminator": {"type": "PatchDiscriminator", "base_width": 4, "depth": 1},
    "objective": {"type": "HingeObjective"},
    "optimizer": ADAM,
    "penalties": {"r1": {"type": "R1Penalty", "every": 1}, "lecam": {"type": "LeCAMPenalty"}},
    "weights": {"objective": 1.0, "r1": 0.1, "lecam": 0.1},
}
STYLEGAN = {
    "discriminator": {"type": "StyleGAN2Discriminator", "image_size": SIDE, "max_width": 8},
    "augmentation": {"type": "DiffAugment"},
}
LPIPS = {"type": "LPIPSLoss", "network": "alex"}


def has_lpips() -> bool:
    """Whether the weights of LPIPS are here; a machine with a GPU may have no network to fetch them."""
    try:
        LPIPSLoss(network="alex")
    except FileNotFoundError:
        return False
    return True


def reconstruction(tree: dict[str, Any]) -> None:
    if has_lpips():
        tree["train_step"]["losses"]["lpips"] = LPIPS
        tree["train_step"]["weights"]["lpips"] = 1.0


def adversarial(tree: dict[str, Any]) -> None:
    reconstruction(tree)
    kept = {
        key: tree["train_step"][key] for key in ("losses", "optimizer", "weight_ema", "max_gradient_norm")
    }
    weights = {**tree["train_step"]["weights"], "adversarial": 0.8}
    tree["train_step"] = {"type": "AdversarialStep", **kept, "weights": weights, "adversary": ADVERSARY}


def not_adaptive(tree: dict[str, Any]) -> None:
    adversarial(tree)
    tree["train_step"] |= {"is_adaptive": False, "adversary": {**ADVERSARY, **STYLEGAN}}


STEPS: dict[str, Callable[[dict[str, Any]], None]] = {
    "reconstruction": reconstruction,
    "adversarial": adversarial,
    "not adaptive, StyleGAN2": not_adaptive,
}


@pytest.fixture(autouse=True)
def _autocast_on_meta(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch has no autocast for the meta device."""
    autocast = torch.autocast

    def made(device_type: str, *arguments: Any, **options: Any) -> torch.autocast:
        return (
            autocast("cpu", enabled=False)
            if device_type == "meta"
            else autocast(device_type, *arguments, **options)
        )

    monkeypatch.setattr(torch, "autocast", made)


def made_step(name: str, device: str, accumulate: int) -> TrainStep:
    tree = config.load(TINY).to_dict()
    STEPS[name](tree)
    tree["train_step"]["accumulate"] = accumulate
    step = assembly.make_step(
        tree, assembly.make_tokenizer(tree).to(device).train(), autocast=device == "cuda"
    )
    for loss in step.losses.values():
        if isinstance(loss, LPIPSLoss):
            loss._is_range_checked = True  # what the first batch of a run does, which may wait
    return step


def batches(number: int, count: int) -> list[dict[str, Tensor]]:
    numbers = torch.Generator().manual_seed(number)
    images = torch.randint(256, (count, 2, 3, SIDE, SIDE), dtype=torch.uint8, generator=numbers)
    return [{"image": image.pin_memory() if torch.cuda.is_available() else image} for image in images]


@pytest.mark.parametrize("device", ["meta", CUDA])
@pytest.mark.parametrize(
    ("name", "accumulate"),
    [("reconstruction", 2), ("adversarial", 1), ("adversarial", 2), ("not adaptive, StyleGAN2", 1)],
)
def test_a_step_does_not_wait(name: str, accumulate: int, device: str) -> None:
    step = made_step(name, device, accumulate)
    step(batches(0, accumulate), 0)  # initialises codes, and makes the state of the optimizers
    given = batches(1, accumulate)
    with without_waiting(device):
        torch.manual_seed(1)
        step(given, 1)


@pytest.mark.parametrize("device", ["meta", CUDA])
@pytest.mark.parametrize("name", sorted(CASES))
def test_a_training_pass_of_a_quantizer_does_not_wait(name: str, device: str) -> None:
    quantizer = CASES[name]().to(device)
    z = vectors(quantizer, 32).to(device)
    quantizer(z)
    with without_waiting(device):
        out = quantizer(z.clone().requires_grad_())
        (out.quantized.sum() + out.loss).backward()


class TestTheCheckItself:
    @pytest.mark.parametrize("device", ["meta", CUDA])
    @pytest.mark.parametrize(
        "wait",
        [
            lambda x: x.sum().item(),
            lambda x: x.nonzero(),
            lambda x: x[x > 0],
            lambda x: x.cpu(),
            lambda x: torch.ones(2).to(x.device),
            lambda x: torch.tensor(0.5, device=x.device),
        ],
    )
    def test_it_finds_what_waits(self, wait: Callable[[Tensor], object], device: str) -> None:
        x = torch.ones(3, device=device)
        with pytest.raises((WaitingError, RuntimeError, NotImplementedError)), without_waiting(device):
            wait(x)

    @pytest.mark.parametrize("device", ["meta", CUDA])
    def test_it_lets_through_what_does_not(self, device: str) -> None:
        x, pixels = torch.ones(3, device=device), torch.ones(3)
        pixels = pixels.pin_memory() if device == "cuda" else pixels
        with without_waiting(device):
            assert (
                x + pixels.to(x.device, non_blocking=True) * 2 + torch.full((), 0.5, device=device)
            ).shape == (3,)
