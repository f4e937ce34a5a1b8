"""Measures the share of generated digits in which a classifier recognises the requested digit.

    python -m tools.judge_digits work_dirs/NAME/generated/iter_1500

The classifier is a small CNN. It is trained on the real digits of a package (40 s on a laptop), and evaluated first on
500 held-out ones. The folder is what `vq generate` has written: images, and the class of each in samples.json.
"""

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
"""The height and width of the digits in pixels."""


def classifier() -> nn.Module:
    """A CNN from images (n, 1, 28, 28) in [0, 1] to ten logits."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
        nn.Conv2d(32, 32, 3, stride=2, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
        nn.Conv2d(32, 64, 3, stride=2, padding=1), nn.BatchNorm2d(64), nn.ReLU(),
        nn.Flatten(), nn.Dropout(0.3), nn.Linear(64 * 7 * 7, 10),
    )  # fmt: skip


def real_digits(split: str) -> tuple[Tensor, Tensor]:
    """Images (n, 1, 28, 28) in [0, 1] and their labels."""
    dataset = DigitsDataset(split=split)
    images = torch.stack([dataset.read(i)[:1] for i in range(len(dataset))]).float() / 255
    return images, torch.tensor([dataset.label(i) for i in range(len(dataset))])


def train_classifier(epochs: int = 12) -> tuple[nn.Module, float]:
    """Trains a classifier; returns it and its accuracy on held-out digits."""
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
    """The share of the images whose label is predicted."""
    return float((model(images).argmax(1) == labels).float().mean())


def generated_digits(folder: Path) -> tuple[Tensor, Tensor]:
    """The images that `vq generate` wrote, and the requested digits.

    Raises:
        UsageError: If there are none, or another program wrote the folder.
    """
    file = folder / "samples.json"
    if not file.is_file():
        raise cli.UsageError(f"{folder}: expected samples.json and images from vq generate, found none")
    try:
        samples = [(str(s["file"]), s["class"]) for s in read_json(file)["samples"]]
        if not samples or not all(Path(name).name == name and type(c) is int for name, c in samples):
            raise ValueError("expected a file name in this folder and a class number for each image")
        pictures = [read_image(folder / name, name)[:1] for name, _ in samples]
        if any(picture.shape[1:] != (SIDE, SIDE) for picture in pictures):
            raise ValueError(f"expected images of {SIDE} x {SIDE} pixels")
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise cli.UsageError(f"{file}: cannot be read as a file of vq generate: {error}") from error
    return torch.stack(pictures).float() / 255, torch.tensor([number for _, number in samples])


def judge(folder: Path) -> dict[str, float]:
    """The accuracy of the classifier on real digits and on those in the folder."""
    images, labels = generated_digits(folder)
    model, held_out = train_classifier()
    return {"real": held_out, "generated": accuracy(model, images, labels), "num_generated": len(images)}


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command."""
    parser = cli.tool_parser(__doc__)
    parser.add_argument("folder", type=Path, help="the folder that vq generate wrote")
    scores = judge(parser.parse_args(argv).folder)
    table = Table("digits", "recognised")
    table.add_row("real, held out (500)", f"{scores['real']:.1%}")
    table.add_row(f"generated ({scores['num_generated']:.0f})", f"{scores['generated']:.1%}")
    Console().print(table)


if __name__ == "__main__":
    cli.main(main)
