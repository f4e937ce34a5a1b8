"""What the demo's budget buys on emoji and photos: `python benchmarks/quality.py`.

Trains each config for its 1,000 steps with the real command, and compares the validation PSNR with that of
the best picture of single-coloured 8 x 8 blocks (each block its mean colour), which has as many numbers as
the index map has indices. Bars on emoji: 4 dB above it, and more than 80 % of the codes in use.
"""

import argparse
import json
import platform
import subprocess
import sys
import time
from datetime import date
from pathlib import Path

import torch
from torch.nn import functional as F

from vq import config
from vq.engine import assembly
from vq.metrics import PSNR
from vq.ops.images import to_signed_unit

CONFIGS = ("fsq/1000_emoji", "ema/1024_emoji", "vq/1024_emoji")
MARGIN, USAGE = 4.0, 0.8


def block_psnr(name: str) -> float:
    """The PSNR of the validation set with each 8 x 8 block replaced by its mean colour."""
    loader = assembly.make_loader(config.load(f"configs/{name}.py").to_dict(), "val_data")
    metric = PSNR()
    for batch in loader.pass_batches():
        image = to_signed_unit(batch["image"])
        blocks = F.interpolate(F.avg_pool2d(image, 8), scale_factor=8, mode="nearest")
        metric.update(
            image=image, reconstruction=blocks, indices=torch.zeros(len(image), 8, 8, dtype=torch.int64)
        )
    return metric.compute()["psnr"]


def train(name: str, steps: int) -> tuple[list[dict], float]:
    """The rows of a run's metrics file, and its minutes."""
    run = f"quality/{date.today():%Y%m%d}_{time.time_ns()}/{name}"
    start = time.monotonic()
    command = [sys.executable, "-m", "vq.train", run, f"configs/{name}.py"]
    subprocess.run([*command, "--override", f".trainer.max_steps:{steps}"], check=True)
    rows = (Path("work_dirs") / run / "metrics.jsonl").read_text().splitlines()
    return [json.loads(row) for row in rows], (time.monotonic() - start) / 60


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("configs", nargs="*", default=CONFIGS, help=f"default: {' '.join(CONFIGS)}")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--out", type=Path, help="also write the figures here, as JSON")
    args = parser.parse_args()
    results = []
    for name in args.configs:
        rows, minutes = train(name, args.steps)
        losses = [row["loss/total"] for row in rows if row["split"] == "train"]
        scores = [row for row in rows if row["split"] == "val"][-1]
        floor = block_psnr(name)
        results.append(
            {
                "config": name,
                "psnr": scores["psnr"],
                "block_psnr": floor,
                "margin_db": scores["psnr"] - floor,
                "ssim": scores["ssim"],
                "lpips_vgg": scores["lpips_vgg"],
                "codebook_usage": scores["codebook_usage"],
                "perplexity": scores["perplexity"],
                "loss_first": losses[0],
                "loss_last": losses[-1],
                "minutes": minutes,
                "meets_bars": scores["psnr"] - floor >= MARGIN and scores["codebook_usage"] > USAGE,
            }
        )
    for row in results:
        print("  ".join(f"{k} {v:.3f}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()))
    if args.out:
        record = {
            "command": "python " + " ".join(sys.argv),
            "date": date.today().isoformat(),
            "hardware": f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}",
            "steps": args.steps,
            "results": results,
        }
        args.out.write_text(json.dumps(record, indent=2) + "\n")
    sys.exit(not all(row["meets_bars"] for row in results if row["config"].endswith("emoji")))


if __name__ == "__main__":
    main()
