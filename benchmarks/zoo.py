"""Time and memory to encode and decode an image: a published tokenizer here, and in its project's own module.

    git clone https://github.com/FoundationVision/LlamaGen && git clone https://github.com/FoundationVision/VAR
    git clone https://github.com/TencentARC/SEED-Voken
    python benchmarks/zoo.py --llamagen LlamaGen --var VAR --ibq SEED-Voken [--size 256] [--threads 1] [--repeats 5]

The weights are random, equal on both sides, and of the published shapes; IBQ has 262,144 codes. Both sides are timed in
turn, in one process; a ratio is that of their medians, and above 1 the tokenizer here is faster. The memory of a side
is what a process of its own allocates beyond its weights, at most. Indices must be equal but for ties within rounding,
which are counted, and images equal to 1e-3.

Bars: never slower than 1.0 of theirs beyond the noise, which is the spread of the ratio over the repeats; the search
among 262,144 codes in at least 5 times less memory.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import torch
from torch import Tensor, nn

from vq.interop import convert
from vq.registry import build
from vq.tokenizers import Tokenizer


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """A module of another project.

    Attributes:
        module: The module, with random weights.
        encode: Images to indices, of any shape.
        decode: These indices to images.
        search: Latents (B, D, h, w) to indices, where the search is measured by itself.
    """

    module: nn.Module
    encode: Callable[[Tensor], Tensor]
    decode: Callable[[Tensor], Tensor]
    search: Callable[[Tensor], Tensor] | None = None


def llamagen(folder: Path, size: int) -> Peer:
    sys.path.insert(0, str(folder / "tokenizer" / "tokenizer_image"))
    from vq_model import VQ_16

    module = VQ_16(codebook_size=16384, codebook_embed_dim=8).eval()
    grid = size // 16
    return Peer(
        module=module,
        encode=lambda images: module.encode(images)[2][2].view(len(images), grid, grid),
        decode=lambda indices: module.decode_code(indices.flatten(), (len(indices), 8, grid, grid)),
    )


def var(folder: Path, size: int) -> Peer:
    sys.path.insert(0, str(folder))
    from models.vqvae import VQVAE

    module = VQVAE(vocab_size=4096, z_channels=32, ch=160, test_mode=True, share_quant_resi=4)
    if size != 256:
        raise SystemExit("--var: its ten scales are those of 256 pixels; use --size 256")
    lengths = [side**2 for side in (1, 2, 3, 4, 5, 6, 8, 10, 13, 16)]
    return Peer(
        module=module.eval(),
        encode=lambda images: torch.cat(module.img_to_idxBl(images), dim=1),
        decode=lambda indices: module.idxBl_to_img(
            list(indices.split(lengths, dim=1)), same_shape=True, last_one=True
        ),
    )


def ibq(folder: Path, size: int) -> Peer:
    sys.path.insert(0, str(folder))
    from src.IBQ.modules.diffusionmodules.model import Decoder, Encoder
    from src.IBQ.modules.vqvae.quantize import IndexPropagationQuantize

    shape = {
        "ch": 128,
        "out_ch": 3,
        "ch_mult": (1, 1, 2, 2, 4),
        "num_res_blocks": 4,
        "attn_resolutions": [16],
        "in_channels": 3,
        "resolution": 256,
        "z_channels": 256,
        "double_z": False,
    }
    module = nn.Module()
    module.encoder, module.decoder = Encoder(**shape), Decoder(**shape)
    module.quantize = IndexPropagationQuantize(262144, 256)
    module.quant_conv, module.post_quant_conv = nn.Conv2d(256, 256, 1), nn.Conv2d(256, 256, 1)
    grid = size // 16

    def search(latent: Tensor) -> Tensor:
        return module.quantize(latent)[2][2].view(len(latent), grid, grid)

    return Peer(
        module=module.eval(),
        encode=lambda images: search(module.quant_conv(module.encoder(images))),
        decode=lambda indices: module.decoder(
            module.post_quant_conv(
                module.quantize.get_codebook_entry(indices.flatten(), (len(indices), grid, grid, 256))
            )
        ),
        search=search,
    )


PEERS = {"llamagen": llamagen, "var": var, "ibq": ibq}


def alternated(sides: list[Callable[[], Tensor]], repeats: int) -> list[list[float]]:
    """The seconds of each call of each side, after one call that is not counted; the sides take turns."""
    seconds: list[list[float]] = [[] for _ in sides]
    for side in sides:
        side()
    for _ in range(repeats):
        for side, found in zip(sides, seconds, strict=True):
            start = time.perf_counter()
            side()
            found.append(time.perf_counter() - start)
    return seconds


def allocated(side: Callable[[], Tensor]) -> float:
    """The bytes that a call allocates at most, in a process of its own; threads must be 1, since it is forked."""
    reading, writing = os.pipe()
    if (process := os.fork()) == 0:
        before = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
        side()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        os.write(writing, str(max(peak - before, 0)).encode())
        os._exit(0)
    os.waitpid(process, 0)
    return float(os.read(reading, 64))


def rows(name: str, peer: Peer, size: int, repeats: int) -> Iterator[dict[str, object]]:
    found = convert(peer.module.state_dict(), name)
    tokenizer: Tokenizer = build(found.config["tokenizer"], path="tokenizer").eval()
    tokenizer.load_state_dict(dict(found.tensors))
    images = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    theirs, ours = peer.encode(images), tokenizer.encode(images)
    differing = int((theirs != ours).sum())
    error = (tokenizer.decode(theirs) - peer.decode(theirs).clamp(-1, 1)).abs().max().item()
    if differing > 0.001 * theirs.numel() or error > 1e-3:
        raise SystemExit(f"{name}: {differing} of {theirs.numel()} indices differ, images by {error:.1e}")
    works = {
        "encode": [lambda: tokenizer.encode(images), lambda: peer.encode(images)],
        "decode": [lambda: tokenizer.decode(theirs), lambda: peer.decode(theirs)],
    }
    if peer.search is not None:
        latent = tokenizer.pre_quant(tokenizer.encoder(images))
        works["search"] = [
            lambda: tokenizer.quantizer.encode(latent.movedim(1, -1)),
            lambda: peer.search(latent),
        ]
    for what, sides in works.items():
        memory = [allocated(side) for side in sides]
        here, there = alternated(sides, repeats)
        ratios = sorted(b / a for a, b in zip(here, there, strict=True))
        yield {
            "model": name,
            "work": what,
            "ratio": statistics.median(there) / statistics.median(here),
            "ratios": [round(ratio, 3) for ratio in ratios],
            "memory_mib": [round(size / 2**20, 1) for size in memory],
            "memory_ratio": round(memory[1] / max(memory[0], 1), 2),
            "differing_indices": differing,
            "largest_difference": error,
        }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    for name in PEERS:
        parser.add_argument(f"--{name}", type=Path, metavar="FOLDER", help=f"the source of {name}")
    parser.add_argument(
        "--size", type=int, default=256, help="height and width in pixels (default: %(default)s)"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, help="also write the figures here, as JSON")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    found = []
    for name, make in PEERS.items():
        if (folder := getattr(arguments, name)) is not None:
            with torch.no_grad():
                for row in rows(name, make(folder, arguments.size), arguments.size, arguments.repeats):
                    print(
                        f"{name:<10} {row['work']}: {row['ratio']:.2f} times as fast as theirs {row['ratios']}, "
                        f"1/{row['memory_ratio']:.1f} of their memory {row['memory_mib']} MiB"
                    )
                    found.append(row)
    if arguments.out is not None:
        record = {
            "date": date.today().isoformat(),
            "machine": platform.processor() or platform.machine(),
            "torch": torch.__version__,
            "threads": arguments.threads,
            "size": arguments.size,
            "rows": found,
        }
        arguments.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return int(any(row["ratios"][-1] < 1 for row in found))


if __name__ == "__main__":
    sys.exit(main())
