"""Time and memory of a training step (forward and backward) of LFQ with its entropy loss.

    python benchmarks/lookup_free.py [--threads 2] [--repeats 5] [--out FILE]

The sides of a row are timed in turn, in one run, as in `benchmarks/quantizers.py`, which says what the
numbers are. `vector-quantize-pytorch` is measured where it is installed and its tables of vectors times
codes fit (6 x N x K x 4 bytes). The entropies of 18 bits are exact but in the rows with groups.

Bars: with 2^14 codes at least 5 times as fast as vector-quantize-pytorch in at most a 20th of its memory;
with 2^18 codes and 8192 vectors under 200 MiB.
"""

import argparse
import importlib.util
import json
import platform
import statistics
import sys
from collections.abc import Callable
from datetime import date
from pathlib import Path

import torch
from quantizers import Side, figures, lines, step
from torch import Tensor

from vq.quantizers import BinarySphericalQuantizer, LookupFreeQuantizer, Quantizer

PEER = "vector-quantize-pytorch"


def ours(z: Tensor, quantizer: Quantizer) -> Callable[[], object]:
    return step(quantizer, z, lambda out: out.quantized.sum() + out.loss)


def peer(z: Tensor, bits: int) -> Callable[[], object]:
    from vector_quantize_pytorch import LFQ

    module = LFQ(codebook_size=2**bits, dim=bits, entropy_loss_weight=0.1, commitment_loss_weight=0.25)
    return step(module, z[None], lambda out: out.quantized.sum() + out.entropy_aux_loss)


def missed(bits: int, vectors: int, found: dict[str, tuple[list[float], float]]) -> list[str]:
    times, extra = found["vq"]
    problems = []
    if (bits, vectors) == (18, 8192) and extra >= 200:
        problems.append(f"2^18 codes take {extra:.0f} MiB")
    if bits == 14 and PEER in found:
        peer_times, peer_extra = found[PEER]
        speed = statistics.median(peer_times) / statistics.median(times)
        if speed < 5 or peer_extra < 20 * extra:
            problems.append(
                f"2^14 codes: {speed:.1f} times as fast, {peer_extra / extra:.1f} times less memory"
            )
    return problems


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, help="also write the figures here, as JSON")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    print(f"torch {torch.__version__}, {arguments.threads} threads, {arguments.repeats} repeats")
    has_peer = importlib.util.find_spec("vector_quantize_pytorch") is not None
    record: dict[str, object] = {}
    problems: list[str] = []
    rows = [
        ("LFQ", 8192, 10, LookupFreeQuantizer(bits=10), True),
        ("LFQ", 4096, 14, LookupFreeQuantizer(bits=14), True),
        ("LFQ", 8192, 18, LookupFreeQuantizer(bits=18), False),
        ("LFQ, groups of 9 bits", 8192, 18, LookupFreeQuantizer(bits=18, group_bits=9), False),
        ("LFQ, groups of 9 bits", 32768, 18, LookupFreeQuantizer(bits=18, group_bits=9), False),
        ("BSQ", 8192, 36, BinarySphericalQuantizer(bits=36), False),
    ]
    for title, vectors, bits, quantizer, peer_fits in rows:
        z = torch.randn(vectors, bits)
        sides: list[Side] = [("vq", ours(z, quantizer))]
        if has_peer and peer_fits:
            sides.append((PEER, peer(z, bits)))
        found = figures(sides, arguments.repeats)
        problems += missed(bits, vectors, found)
        record[f"{title}: N {vectors}, 2^{bits} codes"] = {
            name: {"ms": [round(1e3 * t, 2) for t in times], "extra_mib": round(extra, 1)}
            for name, (times, extra) in found.items()
        }
        print(f"{title}: N {vectors}, 2^{bits} codes")
        print("\n".join(lines(found)), flush=True)
    if arguments.out:
        head = {
            "command": " ".join(["python", *sys.argv]),
            "date": date.today().isoformat(),
            "hardware": f"{platform.machine()}, {arguments.threads} threads, torch {torch.__version__}",
        }
        arguments.out.write_text(json.dumps(head | {"rows": record}, indent=2) + "\n")
    print("\n".join(f"missed: {problem}" for problem in problems) or "every bar is met")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
