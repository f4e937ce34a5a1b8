"""Compiles each quantizer to one graph (`fullgraph=True`), in training and in eval mode: compile time, or the error.

The quantizers are those of tests/contract/quantizer_cases.py. Results are compared with those of the uncompiled one.
Several processes compile at once, because compiling is the work of the processor.
"""

import copy
import multiprocessing
import os
import sys
import time
import warnings
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.timing import Rows, in_one_line

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "contract"))
from quantizer_cases import CASES, vectors

FEW = ("FiniteScalarQuantizer", "VectorQuantizer-ema-ReplaceDeadCodes")
VECTORS = 64
LARGEST_CHANGE = 1e-3
"""By how much sums in another order may change a quantized vector, of a length of about 1."""


def compile_case(name: str, device: str, backend: str) -> dict[str, Any]:
    """Compiles one case and compares a training step and an eval pass with the uncompiled one."""
    warnings.simplefilter("ignore")
    started = time.perf_counter()
    try:
        torch.compiler.reset()
        largest = difference(name, torch.device(device), backend)
        if device == "cuda":
            torch.cuda.synchronize()
    except Exception as error:
        return {"outcome": "failed", "seconds": time.perf_counter() - started, "reason": in_one_line(error)}
    outcome = "passed" if largest <= LARGEST_CHANGE else "different"
    reason = f"largest change of a quantized vector {largest:.2g}"
    return {"outcome": outcome, "seconds": time.perf_counter() - started, "reason": reason}


def difference(name: str, device: torch.device, backend: str) -> float:
    """The largest change of a quantized vector by compilation, among vectors whose indices agree.

    Raises:
        ValueError: If more than a tenth of the indices differ.
    """
    torch.manual_seed(0)
    plain = CASES[name]()
    batches = [vectors(plain, VECTORS).to(device) for _ in range(3)]
    plain = plain.to(device)
    plain(batches[0])  # initialises codes from data
    compiled = copy.deepcopy(plain)
    forward = torch.compile(compiled, fullgraph=True, backend=backend)
    largest = 0.0
    for number, is_training in enumerate((True, False), 1):
        plain.train(is_training), compiled.train(is_training)
        found = []
        for run in (plain, forward):
            torch.manual_seed(number)
            out = run(batches[number].clone().requires_grad_())
            if is_training:
                (out.quantized.square().sum() + out.loss).backward()
            found.append(out)
        axes = found[0].quantized.shape[1:].numel()
        same = (found[0].indices == found[1].indices).reshape(VECTORS, -1).all(dim=1)
        if same.double().mean() < 0.9:
            raise ValueError(
                f"{int((~same).sum())} of {VECTORS} indices differ from those of the uncompiled quantizer"
            )
        change = (found[0].quantized - found[1].quantized).detach().abs().reshape(VECTORS, axes).amax(dim=1)
        largest = max(largest, float(change[same].max()))
    return largest


def main() -> int:
    """Compiles every case that has no row yet."""
    rows = Rows(__doc__)
    names = [name for name in (FEW if rows.is_small else sorted(CASES)) if name not in rows.found]
    work = (rows.device.type, "aot_eager" if rows.is_small else "inductor")
    workers = 1 if rows.is_small else max(1, min(8, (os.cpu_count() or 1) // 2))
    if workers == 1:
        for name in names:
            rows.keep(name, compile_case(name, *work))
    else:
        with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
            jobs = {pool.submit(compile_case, name, *work): name for name in names}
            for job in as_completed(jobs):
                rows.keep(jobs[job], job.result())
    return int(any(row["outcome"] != "passed" for row in rows.found.values()))


if __name__ == "__main__":
    sys.exit(main())
