"""Linear probes of tokenizers against the same probe of pooled pixels: `python benchmarks/probe.py RUN [RUN ...]`.

Each RUN is a run folder of a tokenizer (`work_dirs/NAME`) or its NAME. Its training and validation images are tokenized
once, and for each seed a probe of its tokens is trained with the real commands from the stores. The baselines
probe the mean patch of pixels, without any tokenizer. The target: the best tokenizer beats the best baseline.
"""

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import torch

from vq import tokenize, train

SCORES = ("top1", "top5", "class_mean_top1", "loss")


def probed(page: str, seed: int, steps: int, options: Sequence[str]) -> dict[str, float]:
    """The scores of a probe that is trained anew."""
    run = f"probe_benchmark/{date.today():%Y%m%d}_{time.time_ns()}"
    overrides = [f".evaluator.every:{steps}", f".checkpointer.every:{steps}", f".trainer.log_every:{steps}"]
    words = [
        "--seed",
        str(seed),
        "--config-options",
        *options,
        f"max_steps:{steps}",
        "--override",
        *overrides,
    ]
    return train.main([run, page, *words])


def row(name: str, page: str, seeds: Sequence[int], steps: int, options: Sequence[str]) -> dict[str, Any]:
    """The means and standard deviations of the scores over the seeds."""
    found = [probed(page, seed, steps, options) for seed in seeds]
    scores = {score: [one[score] for one in found] for score in SCORES}
    result: dict[str, Any] = {"name": name, "page": page, "seeds": list(seeds)}
    for score, values in scores.items():
        result[score] = statistics.mean(values)
        result[f"{score}_std"] = statistics.stdev(values) if len(values) > 1 else 0.0
    return result


def tokenized(name: str) -> list[str]:
    """Tokenizes both sets of a run's page; returns the options with which a page probes them."""
    run = Path(name) if Path(name).is_dir() else Path("work_dirs") / name
    for split in ([], ["--train"]):
        tokenize.main([str(run).removeprefix("work_dirs/"), *split])
    return [f"it_state_dict::{run}", f"tokens::{run}/tokens"]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="*", metavar="RUN", help="tokenizers; none measures the baselines only")
    parser.add_argument("--page", default="probe/emoji", help="page of the probe (default %(default)s)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument(
        "--patches",
        type=int,
        nargs="*",
        default=[1, 4, 8],
        help="patch sizes of the baselines (default 1 4 8)",
    )
    parser.add_argument("--out", type=Path, help="also write the figures here, as JSON")
    args = parser.parse_args()
    pixels = str(Path(args.page).with_name(f"pixels_{Path(args.page).name}"))
    baselines = [
        row(f"pixels {size} x {size}", pixels, args.seeds, args.steps, [f"patch_size:{size}"])
        for size in args.patches
    ]
    results = [row(run, args.page, args.seeds, args.steps, tokenized(run)) for run in args.runs]
    for one in baselines + results:
        shown = "  ".join(f"{score} {one[score]:.3f} +- {one[f'{score}_std']:.3f}" for score in SCORES)
        print(f"{one['name']:<32}  {shown}")
    best, bar = (max((one["top1"] for one in some), default=0.0) for some in (results, baselines))
    if args.out:
        record = {
            "command": "python benchmarks/probe.py " + " ".join(sys.argv[1:]),
            "date": date.today().isoformat(),
            "hardware": f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}",
            "steps": args.steps,
            "baselines": baselines,
            "results": results,
            "meets_bar": best > bar,
        }
        args.out.write_text(json.dumps(record, indent=2) + "\n")
    sys.exit(bool(results) and not best > bar)


if __name__ == "__main__":
    main()
