"""Says how many generated digits a classifier takes for the digit that was asked for.

    python -m tools.judge_digits work_dirs/NAME/generated

The classifier is a small CNN, trained here on the real digits inside a package (40 s on a laptop), and first
tried on 500 that it has not seen. The folder is what `vq.generate` writes: pictures, and which class each is.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn import functional as F

from vq import cli
from vq.data import DigitsDataset, read_image
from vq.files import read_json
from vq.ops.keyed import generator

SIDE = 28
"""The digits' height and width in pixels."""


def classifier() -> nn.Module:
    """(n, 1, 28, 28) in [0, 1] -> ten logits."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
        nn.Conv2d(32, 32, 3, stride=2, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
        nn.Conv2d(32, 64, 3, stride=2, padding=1), nn.BatchNorm2d(64), nn.ReLU(),
        nn.Flatten(), nn.Dropout(0.3), nn.Linear(64 * 7 * 7, 10),
    )  # fmt: skip


def real_digits(split: str) -> tuple[Tensor, Tensor]:
    """Pictures (n, 1, 28, 28) in [0, 1] and what they show."""
    dataset = DigitsDataset(split=split)
    images = torch.stack([dataset.read(i)[:1] for i in range(len(dataset))]).float() / 255
    return images, torch.tensor([dataset.label(i) for i in range(len(dataset))])


def train_classifier(epochs: int = 12) -> tuple[nn.Module, float]:
    """A classifier, and its accuracy on the digits that were held out."""
    torch.manual_seed(0)
    images, labels = real_digits("train")
    model = classifier().train()
    steps = epochs * (len(images) // 100)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    for step in range(steps):
        rows = torch.randint(len(images), (100,), generator=generator(0, "judge", step))
        dy, dx = torch.randint(-2, 3, (2,), generator=generator(1, "judge", step)).tolist()
        batch = images[rows].roll((dy, dx), (2, 3))
        loss = F.cross_entropy(model(batch), labels[rows], label_smoothing=0.05)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        schedule.step()
    model.eval()
    return model, accuracy(model, *real_digits("val"))


@torch.no_grad()
def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """The share of the pictures that are taken for their label."""
    return float((model(images).argmax(1) == labels).float().mean())


def generated_digits(folder: Path) -> tuple[Tensor, Tensor]:
    """The pictures that `vq.generate` wrote, and the digits that were asked for.

    Raises:
        UsageError: If there are none, or the folder is not one that it wrote.
    """
    file = folder / "samples.json"
    if not file.is_file():
        raise cli.UsageError(
            f"{folder}: expected samples.json and pictures from python -m vq.generate, found none"
        )
    try:
        samples = [(str(s["file"]), s["class"]) for s in read_json(file)["samples"]]
        if not samples or not all(Path(name).name == name and type(c) is int for name, c in samples):
            raise ValueError("expected the name of a file in this folder and a number for each picture")
        pictures = [read_image(folder / name, name)[:1] for name, _ in samples]
        if any(picture.shape[1:] != (SIDE, SIDE) for picture in pictures):
            raise ValueError(f"expected pictures of {SIDE} x {SIDE} pixels")
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise cli.UsageError(f"{file}: cannot be read as what vq.generate writes: {error}") from error
    return torch.stack(pictures).float() / 255, torch.tensor([number for _, number in samples])


def judge(folder: Path) -> dict[str, float]:
    """The classifier's accuracy on real digits, and on those in the folder."""
    images, labels = generated_digits(folder)
    model, held_out = train_classifier()
    return {"real": held_out, "generated": accuracy(model, images, labels), "num_generated": len(images)}


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="what vq.generate wrote")
    scores = judge(parser.parse_args(argv).folder)
    table = Table("digits", "recognised")
    table.add_row("real, held out (500)", f"{scores['real']:.1%}")
    table.add_row(f"generated ({scores['num_generated']:.0f})", f"{scores['generated']:.1%}")
    Console().print(table)


if __name__ == "__main__":
    cli.main(main)
