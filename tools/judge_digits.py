"""Says how many generated digits a classifier takes for the digit that was asked for.

    python -m tools.judge_digits work_dirs/NAME/generated

The classifier is a small CNN, trained here on the real digits inside a package (40 s on a laptop), and first
tried on 500 that it has not seen. The folder is what `vq.generate` writes: pictures, and which class each is.
"""

import argparse
import json
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn import functional as F

from vq.data import DigitsDataset, read_image
from vq.ops.keyed import generator


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
        SystemExit: If there are none.
    """
    if not (folder / "samples.json").is_file():
        raise SystemExit(
            f"{folder}: expected samples.json and pictures from python -m vq.generate, found none"
        )
    samples = json.loads((folder / "samples.json").read_text(encoding="utf-8"))["samples"]
    images = torch.stack([read_image(folder / s["file"], s["file"])[:1] for s in samples]).float() / 255
    return images, torch.tensor([s["class"] for s in samples])


def judge(folder: Path) -> dict[str, float]:
    """The classifier's accuracy on real digits, and on those in the folder."""
    model, held_out = train_classifier()
    images, labels = generated_digits(folder)
    return {"real": held_out, "generated": accuracy(model, images, labels), "num_generated": len(images)}


def main() -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="what vq.generate wrote")
    scores = judge(parser.parse_args().folder)
    table = Table("digits", "recognised")
    table.add_row("real, held out (500)", f"{scores['real']:.1%}")
    table.add_row(f"generated ({scores['num_generated']:.0f})", f"{scores['generated']:.1%}")
    Console().print(table)


if __name__ == "__main__":
    main()
