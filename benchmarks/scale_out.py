"""The rate at which one process, two ranks of torchrun and two workers of Ray tokenize the same real images.

    OMP_NUM_THREADS=1 python benchmarks/scale_out.py [--repeats 3] [--out FILE]

Each side is the command that a user types, `vq tokenize` on all 4,009 emoji at 64 px (the page fsq/1000_emoji after 20
steps of training; a speed does not depend on the weights), with one thread per process, and starts with an empty
folder. The sides are run in turn. Two figures are reported: images/s of the whole command, start included, and images/s
from the time when each process has written its first shard, which is the rate of a long job. All stores must have equal
bytes. Two processes need two free cores; on shared cores only the ratios within one turn mean something.

Bar: Ray's two workers reach 0.9 of the rate of two ranks of torchrun.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

import torch

PAGE = "fsq/1000_emoji"
DATA = ".val_data.dataset:dict(type='vq.data.EmojiDataset', split='all')"
IMAGES_PER_SHARD = 64
TORCHRUN = ["torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m"]
SIDES = {
    "one process": ([], [], 1),
    "torchrun, 2 ranks": (TORCHRUN, [], 2),
    "ray, 2 workers": ([], ["--engine", "ray", "--ray-workers", "2"], 2),
}
BAR = 0.9


def run(launcher: list[str], module: str, words: list[str], folder: Path) -> None:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", *launcher, f"vq.{module}", *words]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: exit code {done.returncode}\n{done.stderr[-3000:]}")


def measure(side: str, folder: Path, out: str) -> dict[str, float]:
    """Images/s of a side: of the whole command, and once all its processes work."""
    launcher, options, processes = SIDES[side]
    started = time.time()
    words = ["emoji", "--override", DATA, ".val_data.num_workers:0", "--out", out]
    words += ["--images-per-shard", str(IMAGES_PER_SHARD), *options]
    run(launcher, "tokenize", words, folder)
    wall = time.time() - started
    store = folder / out
    count = json.loads((store / "manifest.json").read_text())["num_images"]
    times = sorted(file.stat().st_mtime for file in store.glob("*.notes"))
    # The last shard is not full, and is written at any time: one shard in 63, which is neglected.
    rate = count * (len(times) - processes) / len(times) / (times[-1] - times[processes - 1])
    return {"images": count, "wall_seconds": wall, "of_the_command": count / wall, "of_the_work": rate}


def contents(store: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in store.iterdir()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    turns: list[dict[str, dict[str, float]]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run([], "train", ["emoji", PAGE, "--override", ".trainer.max_steps:20"], folder)
        for i in range(given.repeats):
            stores = {side: f"store{i}_{j}" for j, side in enumerate(SIDES)}
            turns.append({side: measure(side, folder, out) for side, out in stores.items()})
            print(f"turn {i}: {turns[-1]}", flush=True)
            first, *others = (contents(folder / out) for out in stores.values())
            if any(other != first for other in others):
                raise SystemExit("the stores differ")
    rows = {}
    for side in SIDES:
        rows[side] = {
            **{key: statistics.median(turn[side][key] for turn in turns) for key in turns[0][side]},
            "ratio_to_one_process": statistics.median(
                turn[side]["of_the_work"] / turn["one process"]["of_the_work"] for turn in turns
            ),
        }
        print(f"{side}: " + ", ".join(f"{key} {value:.4g}" for key, value in rows[side].items()))
    against = [
        turn["ray, 2 workers"]["of_the_work"] / turn["torchrun, 2 ranks"]["of_the_work"] for turn in turns
    ]
    ratio = statistics.median(against)
    print(f"{'ok    ' if ratio >= BAR else 'MISSED'} Ray at {ratio:.3f} of torchrun ({sorted(against)})")
    if given.out is not None:
        about = {
            "command": " ".join(["python", *sys.argv]), "date": date.today().isoformat(),
            "repeats": given.repeats, "threads": 1, "torch": torch.__version__,
            "python": platform.python_version(), "hardware": f"{platform.machine()}, {os.cpu_count()} cores",
        }  # fmt: skip
        figures = {"rows": rows, "ray_to_torchrun": ratio, "turns": turns}
        given.out.write_text(json.dumps(about | figures, indent=1) + "\n")
    return 0 if ratio >= BAR else 1


if __name__ == "__main__":
    sys.exit(main())
