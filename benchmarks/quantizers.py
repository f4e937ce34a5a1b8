"""Time and memory of a training step (forward and backward) of the quantizers, beside the bare product.

    python benchmarks/quantizers.py [--threads 2] [--repeats 5] [--out FILE]

All sides of a row are timed in turn, in one run; a number is the median and, in brackets, the range.
Use `--threads 1` on a machine that others use too. "extra" is how far the peak of resident memory rises
above what was resident before the step; the copy of `z` (N x D) and its gradient are in it, and the
gradient of the codebook. `vector-quantize-pytorch` and `taming-transformers-rom1504` (VQGAN's own module) are
measured where they are installed; without them their bars are left out.
"""

import argparse
import ctypes
import importlib.util
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import torch
from torch import Tensor

from vq.ops.distance import nearest_code
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
Figures = dict[str, tuple[list[float], float]]
PEER, TAMING = "vector-quantize-pytorch", "taming"
M_MMAP_THRESHOLD = -3  # of glibc's mallopt


@dataclass(frozen=True)
class Row:
    """What is timed side by side, and what the first side of `vq` must reach.

    Attributes:
        faster_than: Side -> at least how many times as fast as it.
        at_most: Side -> at most how many times its time.
        extra_mib: Its extra memory stays below this.
    """

    title: str
    sides: list[Side]
    faster_than: dict[str, float] = field(default_factory=dict)
    at_most: dict[str, float] = field(default_factory=dict)
    extra_mib: float | None = None
    ours: str = "vq"

    def bars(self, found: Figures) -> dict[str, bool]:
        seconds = {name: statistics.median(times) for name, (times, _) in found.items()}
        mine, bars = seconds[self.ours], {}
        for name, times in self.faster_than.items():
            if name in seconds:
                bars[f"{times} times as fast as {name}"] = seconds[name] >= times * mine
        for name, times in self.at_most.items():
            bars[f"at most {times} times {name}"] = mine <= times * seconds[name]
        if self.extra_mib is not None:
            bars[f"under {self.extra_mib} MiB"] = found[self.ours][1] < self.extra_mib
        return bars


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


def taming(z: Tensor, size: int) -> Callable[[], object]:
    """VQGAN's own module, which wants pictures: N = pictures x 16 x 16."""
    from taming.modules.vqvae.quantize import VectorQuantizer2

    pictures = z.view(-1, 16, 16, z.shape[-1]).permute(0, 3, 1, 2).contiguous()
    return step(VectorQuantizer2(size, z.shape[-1], beta=0.25), pictures, lambda out: out[0].sum() + out[1])


def installed(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def memory(line: str) -> float:
    """A line of /proc/self/status in MiB: VmRSS now, VmHWM at its peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(text for text in lines if text.startswith(line)).split()[1]) / 1024


def figures(sides: list[Side], repeats: int) -> Figures:
    """For each side the seconds of its runs, in increasing order, and the extra MiB of one."""
    extra = {}
    libc = ctypes.CDLL(None)
    libc.mallopt(M_MMAP_THRESHOLD, 1 << 20)  # arrays lie by themselves: no gaps between them are counted
    for name, run in sides:
        run()
        # What the allocator kept of earlier steps would hide what this one takes.
        libc.malloc_trim(0)
        before = memory("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")
        run()
        extra[name] = memory("VmHWM") - before
    libc.mallopt(M_MMAP_THRESHOLD, 32 << 20)  # glibc's own after a while of work
    seconds: dict[str, list[float]] = {name: [] for name, _ in sides}
    for _ in range(repeats):
        for name, run in sides:
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    return {name: (sorted(times), extra[name]) for name, times in seconds.items()}


def lines(found: Figures) -> list[str]:
    first = statistics.median(next(iter(found.values()))[0])
    return [
        f"  {name:28} {1e3 * statistics.median(times):8.1f} ms "
        f"({1e3 * times[0]:.1f} to {1e3 * times[-1]:.1f})  x{statistics.median(times) / first:5.2f}  "
        f"extra {extra:7.1f} MiB"
        for name, (times, extra) in found.items()
    ]


def single(title: str, vectors: int, dim: int, size: int, *, ema: bool = False, cosine: bool = False) -> Row:
    """One codebook beside the bare product and the other packages, with the bar of its size."""
    z, codes = torch.randn(vectors, dim), torch.randn(size, dim)
    sides: list[Side] = [
        ("z @ codebook.T", lambda: z @ codes.T),
        ("vq", ours(z, size, ema=ema, cosine=cosine)),
    ]
    if installed("vector_quantize_pytorch"):
        sides.append((PEER, peer(z, size, ema=ema, cosine=cosine)))
    full_title = f"{title}: N {vectors}, D {dim}, K {size}"
    if size == 1024:
        return Row(full_title, sides, faster_than={PEER: 1})
    if size == 65536:
        return Row(full_title, sides, faster_than={PEER: 4}, extra_mib=110)
    if dim == 256:
        extra_mib = None if ema else 64  # the averages of EMA are another K x D
        return Row(
            full_title, sides, faster_than={PEER: 5}, at_most={"z @ codebook.T": 1.3}, extra_mib=extra_mib
        )
    if installed("taming"):
        sides.append((TAMING, taming(z, size)))
    return Row(full_title, sides, faster_than={PEER: 12, TAMING: 5}, extra_mib=16)


def search(vectors: int, dim: int, size: int, *, bar: float) -> Row:
    """The search alone beside one product and the argmin of all of it."""
    z, codes = torch.randn(vectors, dim), torch.randn(size, dim)
    sides: list[Side] = [
        ("product, argmin", lambda: (z @ codes.T).argmin(dim=1)),
        ("vq", lambda: nearest_code(z, codes)),
    ]
    full_title = f"Nearest code: N {vectors}, D {dim}, K {size}"
    return Row(full_title, sides, at_most={"product, argmin": bar})


def stacked(title: str, *, ema: bool) -> Row:
    z = torch.randn(8192, 64)
    sides = [(f"depth {depth}", residual(z, 1024, depth, ema=ema)) for depth in (1, 4)]
    full_title = f"Residual {title}, one shared codebook: N 8192, D 64, K 1024"
    return Row(full_title, sides, at_most={"depth 1": 4.2}, ours="depth 4")


def index_backpropagation() -> Row:
    z = torch.randn(2048, 8)
    plain = IndexBackpropagationQuantizer(size=16384, dim=8, entropy_weight=0.0)
    tables = step(FullTables(16384, 8), z, lambda out: out[0].sum() + out[1])
    return Row(
        "IBQ without entropy: N 2048, D 8, K 16384", [("vq", trained(plain, z)), ("full tables", tables)]
    )


ROWS: list[Callable[[], Row]] = [
    lambda: search(1024, 64, 1024, bar=1.1),
    lambda: search(4096, 64, 1024, bar=1.1),
    lambda: search(4096, 8, 65536, bar=1.2),
    lambda: single("VQ", 8192, 256, 16384),
    lambda: single("VQ, EMA", 8192, 256, 16384, ema=True),
    lambda: single("VQ", 2048, 8, 16384),
    lambda: single("VQ, EMA, cosine", 4096, 8, 65536, ema=True, cosine=True),
    lambda: single("VQ", 4096, 64, 1024),
    lambda: single("VQ, EMA", 4096, 64, 1024, ema=True),
    lambda: single("VQ, EMA, cosine", 4096, 64, 1024, ema=True, cosine=True),
    lambda: stacked("VQ", ema=False),
    lambda: stacked("VQ, EMA", ema=True),
    index_backpropagation,
]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, help="also write the figures here, as JSON")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    print(f"torch {torch.__version__}, {arguments.threads} threads, {arguments.repeats} repeats")
    record, all_bars = {}, {}
    for make in ROWS:
        row = make()
        found = figures(row.sides, arguments.repeats)
        bars = row.bars(found)
        record[row.title] = {
            name: {"ms": [round(1e3 * t, 2) for t in times], "extra_mib": round(extra, 1)}
            for name, (times, extra) in found.items()
        }
        all_bars |= {f"{row.title}: {bar}": holds for bar, holds in bars.items()}
        print(row.title)
        print("\n".join(lines(found)), flush=True)
        for bar, holds in bars.items():
            print(f"  {'ok    ' if holds else 'MISSED'} {bar}", flush=True)
    if arguments.out:
        head = {
            "command": " ".join(["python", *sys.argv]),
            "date": date.today().isoformat(),
            "hardware": f"{platform.machine()}, {arguments.threads} threads, torch {torch.__version__}",
        }
        arguments.out.write_text(json.dumps(head | {"rows": record, "bars": all_bars}, indent=2) + "\n")
    return 0 if all(all_bars.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
