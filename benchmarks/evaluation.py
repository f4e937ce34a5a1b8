"""What an evaluation costs: the Fréchet distance beside SciPy's root, a whole pass beside its networks, memory.

    OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 python benchmarks/evaluation.py [--repeats 3] [--out FILE]

All in one thread, and in the CPU time of this process: on a shared machine wall time says little. The two
sides of a row are timed in turn. Inception and LPIPS have random weights here; their time is the same.

Bars: the distance at 2048 dimensions at least 6 times as fast as `scipy.linalg.sqrtm` with 5000 samples and
within 1e-6 of it, at least 2 times with 1000 samples and within 1e-6 of the value from the features
themselves; a whole evaluation (FID, LPIPS, PSNR, SSIM, usage) at most 1.1 times its networks' forwards; the
same peak of memory for 10,000 and 50,000 feature vectors, within 16 MiB.
"""

import argparse
import ctypes
import json
import os
import platform
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from datetime import date
from pathlib import Path

import numpy as np
import scipy
import scipy.linalg
import torch
from quantizers import memory
from torch import Tensor

from vq.metrics import (
    PSNR,
    SSIM,
    CodebookUsage,
    FIDMetric,
    LPIPSMetric,
    share_features,
    update_metrics,
)
from vq.metrics.moments import MomentSums
from vq.networks import InceptionNetwork
from vq.networks.frozen.inception import INCEPTION_WEIGHTS, inception_shapes
from vq.ops.frechet import frechet_distance, frechet_distance_of_features, moments
from vq.ops.images import to_uint8

DIM = 2048


def features(count: int, seed: int) -> Tensor:
    """Correlated features whose variances span three decades, as a network's do."""
    draws = torch.Generator().manual_seed(seed)
    mix = torch.randn(DIM, DIM, generator=torch.Generator().manual_seed(9)).double()
    scale = torch.logspace(0, -1.5, DIM, dtype=torch.float64)
    return torch.randn(count, DIM, generator=draws).double() * scale @ torch.linalg.qr(mix)[0] + 0.01 * seed


def seconds(run: Callable[[], object]) -> float:
    start = time.process_time()
    run()
    return time.process_time() - start


def by_scipy(mean_a: Tensor, cov_a: Tensor, mean_b: Tensor, cov_b: Tensor) -> float:
    root = scipy.linalg.sqrtm((cov_a @ cov_b).numpy())
    traces = float((mean_a - mean_b).square().sum() + cov_a.trace() + cov_b.trace())
    return traces - 2 * float(np.trace(root).real)


def distance(count: int, repeats: int) -> dict[str, float]:
    x, y = features(count, 0), features(count, 1) * 1.1
    gaussians = [part for z in (x, y) for part in moments(z.sum(dim=0), z.T @ z, len(z))]
    ours, theirs, values = [], [], []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # SciPy's, that the product is singular
        for _ in range(repeats):
            ours.append(seconds(lambda: frechet_distance(*gaussians)))
            theirs.append(seconds(lambda: values.append(by_scipy(*gaussians))))
    sqrtm = values[-1]
    found, exact = frechet_distance(*gaussians).item(), frechet_distance_of_features(x, y).item()
    itself = frechet_distance(*gaussians[:2], *gaussians[:2]).item()
    return {
        "seconds": statistics.median(ours),
        "sqrtm_seconds": statistics.median(theirs),
        "speedup": statistics.median(theirs) / statistics.median(ours),
        "difference_from_sqrtm": found - sqrtm,
        "difference_from_features": found - exact,
        "sqrtm_difference_from_features": sqrtm - exact,
        "distance_to_itself": itself,
    }


def random_inception() -> InceptionNetwork:
    draws = torch.Generator().manual_seed(0)
    tensors: dict[str, Tensor] = {}
    for name, shape in inception_shapes().items():
        fan_in = int(np.prod(shape[1:]))
        drawn = torch.randn(shape, generator=draws) * (2 / fan_in) ** 0.5
        tensors[name] = torch.ones(shape) if name.endswith(("running_var", "bn.weight")) else drawn
    kept = os.environ.get("VQ_PRETRAINED")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / INCEPTION_WEIGHTS
        file.parent.mkdir()
        torch.save(tensors, file)
        os.environ["VQ_PRETRAINED"] = folder
        try:
            return InceptionNetwork()
        finally:
            os.environ.pop("VQ_PRETRAINED")
            if kept is not None:
                os.environ["VQ_PRETRAINED"] = kept


def whole_evaluation(repeats: int, batch: int = 8, side: int = 128) -> dict[str, float]:
    """A batch through all metrics, beside the forwards of their networks alone."""
    inception, lpips = random_inception(), LPIPSMetric(network="vgg")
    metrics = [FIDMetric(network=inception), lpips, PSNR(), SSIM(), CodebookUsage(codebook_size=16384)]
    share_features(metrics)
    draws = torch.Generator().manual_seed(1)

    def fresh() -> dict[str, Tensor]:
        image = torch.rand(batch, 3, side, side, generator=draws) * 2 - 1
        indices = torch.randint(16384, (batch, 16, 16), generator=draws)
        return {"image": image, "reconstruction": image * 0.9, "indices": indices}

    def evaluate() -> None:
        update_metrics(metrics, **fresh())

    def forwards() -> None:
        given = fresh()
        with torch.no_grad():
            inception(to_uint8(given["image"]))
            inception(to_uint8(given["reconstruction"]))
            lpips.network(given["reconstruction"], given["image"])

    evaluate(), forwards()
    pairs = [(seconds(evaluate), seconds(forwards)) for _ in range(max(repeats, 5))]
    ours, theirs = (statistics.median(side) for side in zip(*pairs, strict=True))
    return {"seconds": ours, "forwards_seconds": theirs, "ratio": ours / theirs}


def peak(count: int) -> float:
    """MiB that summing `count` feature vectors, in batches of 500, adds to what is resident."""
    sums, batch = MomentSums(size=DIM), torch.rand(500, DIM)
    sums.add(batch)
    ctypes.CDLL(None).malloc_trim(0)  # what the allocator kept would hide what this takes
    before = memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    for _ in range(count // len(batch)):
        sums.add(batch)
    return memory("VmHWM") - before


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = {f"frechet_{count}": distance(count, arguments.repeats) for count in (5000, 1000)}
    rows["whole_evaluation"] = whole_evaluation(arguments.repeats)
    rows["memory"] = {"extra_mib_10000": peak(10_000), "extra_mib_50000": peak(50_000)}
    many, few, grown = rows["frechet_5000"], rows["frechet_1000"], rows["memory"]
    bars = {
        "5000 samples: 6 times as fast as sqrtm": many["speedup"] >= 6,
        "5000 samples: within 1e-6 of sqrtm": abs(many["difference_from_sqrtm"]) < 1e-6,
        "1000 samples: 2 times as fast as sqrtm": few["speedup"] >= 2,
        "1000 samples: within 1e-6 of the features' own": abs(few["difference_from_features"]) < 1e-6,
        "a set to itself: below 1e-8": max(abs(x["distance_to_itself"]) for x in (many, few)) < 1e-8,
        "whole evaluation: 1.1 times its forwards": rows["whole_evaluation"]["ratio"] <= 1.1,
        "memory: independent of the set's size": grown["extra_mib_50000"] - grown["extra_mib_10000"] < 16,
    }
    for title, row in rows.items():
        print(f"{title}: " + ", ".join(f"{name} {value:.4g}" for name, value in row.items()))
    for bar, holds in bars.items():
        print(f"{'ok    ' if holds else 'MISSED'} {bar}")
    if arguments.out is not None:
        about = {
            "command": "python benchmarks/evaluation.py", "date": date.today().isoformat(),
            "repeats": arguments.repeats,
            "torch": torch.__version__, "scipy": scipy.__version__, "python": platform.python_version(),
            "hardware": f"{platform.machine()}, {os.cpu_count()} cores",
        }  # fmt: skip
        arguments.out.write_text(json.dumps(about | {"rows": rows, "bars": bars}, indent=1) + "\n")
    return 0 if all(bars.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
