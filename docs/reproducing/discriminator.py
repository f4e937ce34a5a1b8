"""Compares runs trained with and without a discriminator: their reconstructions and how sharp these are.

    python docs/reproducing/discriminator.py work_dirs/without work_dirs/with --out docs/images/discriminator.png

Scores are over the validation photographs at 64 px. Sharpness is the mean absolute difference between neighbouring
pixels, relative to that of the originals. The picture shows the originals in the first row and each run in a row below.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console
from torch import Tensor

import vq
from vq.data import PhotoDataset
from vq.metrics import FeatureCosine, LPIPSMetric
from vq.networks import EfficientNetLite0
from vq.ops.images import save_png, to_signed_unit, to_uint8

COLUMNS, ZOOM = 12, 2


def sharpness(image: Tensor) -> float:
    """Mean absolute difference between neighbouring pixels, summed over both directions."""
    down, right = image.diff(dim=-2).abs().mean(), image.diff(dim=-1).abs().mean()
    return float(down + right)


def main(argv: Sequence[str] | None = None) -> int:
    """Prints one line per run and writes the picture."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args(argv)
    dataset = PhotoDataset(split="val", crop_size=64)
    pictures = torch.stack([torch.as_tensor(dataset.read(i)) for i in range(len(dataset))])
    images = to_signed_unit(pictures)
    network, console = EfficientNetLite0(), Console(soft_wrap=True, highlight=False)
    shown = torch.linspace(0, len(dataset) - 1, COLUMNS).long()
    rows = [pictures[shown]]
    for run in args.runs:
        tokenizer = vq.load(run)
        with torch.no_grad():
            found = torch.cat([tokenizer(part).reconstruction for part in images.split(32)]).clamp(-1, 1)
        squared = ((found - images) / 2).square().mean(dim=(1, 2, 3))
        indices = torch.zeros(len(images), 1, 1, dtype=torch.int64)
        scores = {"PSNR": float(-10 * squared.log10().mean())}
        for metric in (
            LPIPSMetric(network="alex"),
            LPIPSMetric(network="vgg"),
            FeatureCosine(network=network),
        ):
            for some in torch.arange(len(images)).split(32):
                metric.update(image=images[some], reconstruction=found[some], indices=indices[some])
            scores |= metric.compute()
        scores["sharpness"] = sharpness(found) / sharpness(images)
        told = ", ".join(f"{name} {value:.4f}" for name, value in scores.items())
        console.print(f"{run}: {told} ({len(dataset)} photographs)")
        rows.append(to_uint8(found)[shown])
    grid = torch.cat([torch.cat(list(row), dim=2) for row in rows], dim=1)
    save_png(grid.repeat_interleave(ZOOM, dim=1).repeat_interleave(ZOOM, dim=2), args.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
