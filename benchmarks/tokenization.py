"""What turning files into a token store costs beside the bare encoder and quantizer.

    OMP_NUM_THREADS=1 python benchmarks/tokenization.py [--images 4000] [--workers 1] [--repeats 5] [--out FILE]

One side is what `vq.tokenize` runs: files on disk (emoji, written here as PNG and JPEG into a folder), decoded
and resized by workers, encoded, packed, checked and written in shards. The other encodes the same pictures, in
batches of the same size that lie in memory as a loader gives them (uint8), and does nothing else. Both must find
the same indices. They are timed in turn, and the median of the ratio of neighbours is compared. The first row is
the tokenizer of configs/fsq/1000_emoji.py; the second VQGAN's CNN, narrow, with a learned codebook.

The encoder has one thread and each worker a core of its own: with one worker two free cores are needed, and another
program on them costs the file side alone. `cpu_ratio` compares the time on the CPU of this process, workers left
out: it is what the ratio would be with cores enough. (A file named tokenize.py here would hide Python's own module of
that name from every benchmark.)

Bar: at least 0.95 of the bare throughput.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.transforms.v2 import functional
from torchvision.utils import save_image

from vq.data import EmojiDataset, ImageFolder, ImageLoader, Resize, TokenStore
from vq.engine.jobs.tokenization import tokenize
from vq.networks import CNNDecoder, CNNEncoder, StridedCNNDecoder, StridedCNNEncoder
from vq.ops.images import to_signed_unit
from vq.quantizers import FiniteScalarQuantizer, LearnedCodebook, UniformInit, VectorQuantizer
from vq.tokenizers import ImageTokenizer
from vq.tokenizers.fingerprint import fingerprint

BAR = 0.95
BATCH = 32
LARGER = 1.25  # the files, beside what the encoder sees


def strided() -> ImageTokenizer:
    widths = (32, 64, 128)
    return ImageTokenizer(
        encoder=StridedCNNEncoder(widths=widths, num_blocks=1),
        quantizer=FiniteScalarQuantizer(levels=[8, 5, 5, 5]),
        decoder=StridedCNNDecoder(widths=widths, num_blocks=1),
    )


def vqgan() -> ImageTokenizer:
    return ImageTokenizer(
        encoder=CNNEncoder(base_width=16),
        quantizer=VectorQuantizer(codebook=LearnedCodebook(size=1024, dim=256, init=UniformInit())),
        decoder=CNNDecoder(base_width=16),
    )


ROWS: dict[str, tuple[Callable[[], ImageTokenizer], int, int]] = {  # tokenizer, side, share of the images
    "64 px, strided CNN f8, FSQ": (strided, 64, 1),
    "128 px, VQGAN f16, 1024 codes": (vqgan, 128, 8),
}


def write_files(folder: Path, count: int, side: int) -> None:
    """Pictures somewhat larger than the encoder's, every other one as JPEG."""
    emoji = EmojiDataset(split="all")
    for i in range(count):
        image = functional.resize(emoji.read(i % len(emoji)), [round(LARGER * side)] * 2, antialias=True)
        file = folder / f"class{i % 10}" / f"{i:05d}.{('png', 'jpg')[i % 2]}"
        file.parent.mkdir(parents=True, exist_ok=True)
        save_image(image.float() / 255, file)


@torch.no_grad()
def encode(tokenizer: nn.Module, batches: list[Tensor]) -> Tensor:
    """The bare side."""
    return torch.cat([tokenizer.encode(to_signed_unit(batch)) for batch in batches]).cpu()  # type: ignore[operator]


def seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def measure(title: str, given: argparse.Namespace, folder: Path) -> dict[str, float]:
    make, side, share = ROWS[title]
    torch.manual_seed(0)
    tokenizer = make().to(given.device).eval()
    pictures, out = folder / "pictures", folder / "tokens"
    write_files(pictures, given.images // share, side)
    loader = ImageLoader(
        dataset=ImageFolder(root=pictures),
        transforms=[Resize(size=side)],
        batch_size=BATCH,
        num_workers=given.workers,
        shuffle=False,
    )
    read_alone = seconds(lambda: list(loader.pass_batches()))
    batches = [batch["image"].clone().to(given.device) for batch in loader.pass_batches()]
    count = sum(len(batch) for batch in batches)

    def write() -> None:
        settings = {"tokenizer_sha256": fingerprint(tokenizer)}
        tokenize(tokenizer, loader, out, settings=settings, images_per_shard=given.images_per_shard)

    ours, bare, on_cpu = [], [], []
    for i in range(given.repeats + 1):  # the first pair warms up
        shutil.rmtree(out, ignore_errors=True)
        begun = time.process_time()
        wall = seconds(write)
        middle = time.process_time()
        bare_wall = seconds(lambda: encode(tokenizer, batches))
        if i:
            ours.append(wall), bare.append(bare_wall)
            on_cpu.append((time.process_time() - middle) / (middle - begun))
    store, expected = TokenStore(out), encode(tokenizer, batches)
    if not all(torch.equal(store.read(i), expected[i]) for i in range(count)):
        raise RuntimeError(f"{title}: the store does not hold what the encoder says")
    return {
        "images": count,
        "images_per_second": count / statistics.median(ours),
        "bare_images_per_second": count / statistics.median(bare),
        "decoding_alone_images_per_second": count / read_alone,
        "ratio": statistics.median(b / o for o, b in zip(ours, bare, strict=True)),
        "cpu_ratio": statistics.median(on_cpu),
        "lowest_ratio": min(b / o for o, b in zip(ours, bare, strict=True)),
        "highest_ratio": max(b / o for o, b in zip(ours, bare, strict=True)),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--images", type=int, default=4000, help="of 64 px; an eighth of 128 px")
    parser.add_argument("--images-per-shard", type=int, default=1024)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows = {}
    for title in ROWS:
        with tempfile.TemporaryDirectory() as folder:
            rows[title] = measure(title, given, Path(folder))
        print(f"{title}: " + ", ".join(f"{name} {value:.4g}" for name, value in rows[title].items()))
    bars = {f"{title}: {BAR} of the bare throughput": row["ratio"] >= BAR for title, row in rows.items()}
    for bar, holds in bars.items():
        print(f"{'ok    ' if holds else 'MISSED'} {bar}")
    if given.out is not None:
        about = {
            "command": " ".join(["python", *sys.argv]), "date": date.today().isoformat(),
            "repeats": given.repeats, "workers": given.workers, "threads": 1, "device": given.device,
            "torch": torch.__version__, "python": platform.python_version(),
            "hardware": f"{platform.machine()}, {os.cpu_count()} cores",
        }  # fmt: skip
        given.out.write_text(json.dumps(about | {"rows": rows, "bars": bars}, indent=1) + "\n")
    return 0 if all(bars.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
