"""Time and memory of a training step (forward and backward) of the quantizers, beside the bare product.

    python benchmarks/quantizers.py [--threads 2] [--repeats 5]

All sides of a row are timed in turn, in one run; a number is the median and, in brackets, the range.
Use `--threads 1` on a machine that others use too. "extra" is how far the peak of resident memory rises
above what was resident before the step; the copy of `z` (N x D) and its gradient are in it, and the
gradient of the codebook. `vector-quantize-pytorch` is measured where it is installed.
"""

import argparse
import ctypes
import importlib.util
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from vq.quantizers import (
    CosineDistance,
    EMACodebook,
    IndexBackpropagationQuantizer,
    LearnedCodebook,
    NormalInit,
    Quantizer,
    ResidualQuantizer,
    VectorQuantizer,
)

Side = tuple[str, Callable[[], object]]


def step(module: torch.nn.Module, z: Tensor, loss_of: Callable[[object], Tensor]) -> Callable[[], object]:
    def run() -> None:
        leaf = z.clone().requires_grad_()
        module.zero_grad(set_to_none=True)
        loss_of(module(leaf)).backward()

    return run


def trained(quantizer: Quantizer, z: Tensor) -> Callable[[], object]:
    return step(quantizer, z, lambda out: out.quantized.sum() + out.loss)


def ours(z: Tensor, size: int, *, ema: bool, cosine: bool) -> Callable[[], object]:
    book = (EMACodebook if ema else LearnedCodebook)(size=size, dim=z.shape[-1], init=NormalInit())
    quantizer = VectorQuantizer(codebook=book, distance=CosineDistance() if cosine else None)
    return trained(quantizer, z)


def residual(z: Tensor, size: int, depth: int, *, ema: bool) -> Callable[[], object]:
    """`depth` stages over one shared codebook."""
    book = (EMACodebook if ema else LearnedCodebook)(size=size, dim=z.shape[-1], init=NormalInit())
    return trained(ResidualQuantizer(quantizers=[VectorQuantizer(codebook=book)], depth=depth), z)


class FullTables(torch.nn.Module):
    """IBQ without its entropy, as it is usually written: with every table of vectors times codes."""

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        self.codes = torch.nn.Parameter(torch.randn(size, dim) / size)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        soft = (z @ self.codes.T).softmax(dim=1)
        hard = torch.zeros_like(soft).scatter_(1, soft.argmax(dim=1, keepdim=True), 1.0)
        quantized, code = (hard - soft.detach() + soft) @ self.codes, hard @ self.codes
        pull, move = (code.detach() - z).square().mean(), (code - z.detach()).square().mean()
        return quantized, (quantized - z).square().mean() + pull + 0.25 * move


def peer(z: Tensor, size: int, *, ema: bool, cosine: bool) -> Callable[[], object]:
    from vector_quantize_pytorch import VectorQuantize

    module = VectorQuantize(
        dim=z.shape[-1],
        codebook_size=size,
        use_cosine_sim=cosine,
        decay=0.99,
        **({} if ema else {"ema_update": False, "learnable_codebook": True}),
    )
    return step(module, z[None], lambda out: out[0].sum() + out[2].sum())


def memory(field: str) -> float:
    """A line of /proc/self/status in MiB: VmRSS now, VmHWM at its peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1]) / 1024


def figures(sides: list[Side], repeats: int) -> dict[str, tuple[list[float], float]]:
    """For each side the seconds of its runs, in increasing order, and the extra MiB of one."""
    extra = {}
    for name, run in sides:
        run()
        # What the allocator kept of earlier steps would hide what this one takes.
        ctypes.CDLL(None).malloc_trim(0)
        before = memory("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")
        run()
        extra[name] = memory("VmHWM") - before
    seconds: dict[str, list[float]] = {name: [] for name, _ in sides}
    for _ in range(repeats):
        for name, run in sides:
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    return {name: (sorted(times), extra[name]) for name, times in seconds.items()}


def lines(found: dict[str, tuple[list[float], float]]) -> list[str]:
    first = statistics.median(next(iter(found.values()))[0])
    return [
        f"  {name:28} {1e3 * statistics.median(times):8.1f} ms "
        f"({1e3 * times[0]:.1f} to {1e3 * times[-1]:.1f})  x{statistics.median(times) / first:5.2f}  "
        f"extra {extra:7.1f} MiB"
        for name, (times, extra) in found.items()
    ]


def measure(sides: list[Side], repeats: int) -> list[str]:
    return lines(figures(sides, repeats))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    print(f"torch {torch.__version__}, {arguments.threads} threads, {arguments.repeats} repeats")
    has_peer = importlib.util.find_spec("vector_quantize_pytorch") is not None
    rows = [
        ("VQ", 8192, 256, 16384, {"ema": False, "cosine": False}),
        ("VQ, EMA", 8192, 256, 16384, {"ema": True, "cosine": False}),
        ("VQ", 2048, 8, 16384, {"ema": False, "cosine": False}),
        ("VQ, EMA, cosine", 4096, 8, 65536, {"ema": True, "cosine": True}),
        ("VQ", 4096, 64, 1024, {"ema": False, "cosine": False}),
        ("VQ, EMA", 4096, 64, 1024, {"ema": True, "cosine": False}),
        ("VQ, EMA, cosine", 4096, 64, 1024, {"ema": True, "cosine": True}),
    ]
    for title, vectors, dim, size, kind in rows:
        z, codes = torch.randn(vectors, dim), torch.randn(size, dim)
        sides: list[Side] = [("z @ codebook.T", lambda z=z, codes=codes: z @ codes.T)]
        sides.append(("vq", ours(z, size, **kind)))
        if has_peer:
            sides.append(("vector-quantize-pytorch", peer(z, size, **kind)))
        print(f"{title}: N {vectors}, D {dim}, K {size}")
        print("\n".join(measure(sides, arguments.repeats)), flush=True)
    for title, ema in (("VQ", False), ("VQ, EMA", True)):
        z = torch.randn(8192, 64)
        print(f"Residual {title}, one shared codebook: N 8192, D 64, K 1024")
        stacked = [(f"depth {depth}", residual(z, 1024, depth, ema=ema)) for depth in (1, 4)]
        print("\n".join(measure(stacked, arguments.repeats)), flush=True)
    z = torch.randn(2048, 8)
    print("IBQ without entropy: N 2048, D 8, K 16384")
    plain = IndexBackpropagationQuantizer(size=16384, dim=8, entropy_weight=0.0)
    tables = step(FullTables(16384, 8), z, lambda out: out[0].sum() + out[1])
    print("\n".join(measure([("vq", trained(plain, z)), ("full tables", tables)], arguments.repeats)))


if __name__ == "__main__":
    main()
