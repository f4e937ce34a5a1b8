"""JPEG files to a token store, against the bare encoder and quantizer on the same images in memory.

The files, of 288 px, are made on the spot. `vq` is what `vq tokenize` runs: workers decode and resize, the GPU encodes,
shards are packed and written. `bare encoder` encodes batches that are on the GPU already. Their ratio is the
utilisation. `loader alone` reads the same files and does nothing with them: where it is slower than the bare encoder,
it is the limit.
"""

import os
import shutil
import tempfile
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.io import encode_jpeg

from benchmarks.gpu.timing import Rows, Side
from vq.data import ImageFolder, ImageLoader, Resize
from vq.engine.jobs.tokenization import tokenize
from vq.engine.steps.tuning import Tuning, networks_of
from vq.networks import CNNDecoder, CNNEncoder
from vq.ops.images import to_signed_unit
from vq.quantizers import LearnedCodebook, UniformInit, VectorQuantizer
from vq.tokenizers import ImageTokenizer

LARGER = 1.125
"""The side of a file, relative to that of the encoder's image."""
DIFFERENT = 256
"""How many different images are made, which takes longer than reading them."""
BAR = 0.95


def write_files(folder: Path, count: int, side: int) -> None:
    """Writes JPEG files of smooth colours with some noise; the files repeat after `DIFFERENT` images."""
    numbers = torch.Generator().manual_seed(0)
    contents = []
    for _ in range(min(count, DIFFERENT)):
        coarse = 255 * torch.rand(1, 3, 8, 8, generator=numbers)
        image = F.interpolate(coarse, size=(side, side), mode="bicubic")[0]
        image += 12 * torch.randn(3, side, side, generator=numbers)
        contents.append(encode_jpeg(image.clamp(0, 255).to(torch.uint8), quality=90).numpy().tobytes())
    for index in range(count):
        file = folder / f"class{index % 10}" / f"{index:06d}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(contents[index % len(contents)])


def tuned_tokenizer(rows: Rows) -> ImageTokenizer:
    """VQGAN f16 from random weights, with its encoder channels-last and compiled."""
    torch.manual_seed(0)
    width = rows.size(128, 32)
    tokenizer = ImageTokenizer(
        encoder=CNNEncoder(base_width=width),
        quantizer=VectorQuantizer(codebook=LearnedCodebook(size=16384, dim=256, init=UniformInit())),
        decoder=CNNDecoder(base_width=width),
    ).to(rows.device)
    tuning = Tuning(is_channels_last=rows.device.type == "cuda", is_compiled=not rows.is_small)
    tuning.apply(tokenizer, networks_of(tokenizer))
    return tokenizer.eval()


def encode_all(tokenizer: ImageTokenizer, batches: list[Tensor]) -> Tensor:
    """The indices of all images."""
    return torch.cat([tokenizer.encode(to_signed_unit(batch)) for batch in batches])


def main() -> None:
    """Measures every row."""
    rows = Rows(__doc__)
    side, count, batch = rows.size(256, 32), rows.size(6144, 16), rows.size(64, 8)
    workers = rows.size(min(16, os.cpu_count() or 1), 0)
    title = f"tokenization, VQGAN f16, {side} px, {count} JPEG files, {workers} workers"
    if title in rows.found:
        return
    autocast = torch.autocast(rows.device.type, torch.bfloat16, enabled=rows.device.type == "cuda")
    with tempfile.TemporaryDirectory() as folder, torch.no_grad(), autocast:
        pictures, store = Path(folder) / "pictures", Path(folder) / "tokens"
        write_files(pictures, count, round(LARGER * side))
        loader = ImageLoader(
            dataset=ImageFolder(root=pictures), transforms=[Resize(size=side)], batch_size=batch,
            num_workers=workers, shuffle=False,
        )  # fmt: skip
        tokenizer = tuned_tokenizer(rows)

        def from_files() -> Side:
            def run() -> None:
                shutil.rmtree(store, ignore_errors=True)
                tokenize(tokenizer, loader, store, settings={})

            return run

        def bare() -> Side:
            batches = [b["image"].clone().to(rows.device) for b in loader.pass_batches()]
            return lambda: encode_all(tokenizer, batches).cpu()

        def loader_alone() -> Side:
            return lambda: sum(len(b["image"]) for b in loader.pass_batches())

        rows.measure(
            title,
            {"vq": from_files, "bare encoder": bare, "loader alone": loader_alone},
            bars={"bare encoder": BAR},
            rounds=3,
            warm_up=1,
            facts={"images": count},
            derive=lambda ms: {"images/s": 1e3 * count / ms},
        )
    add_utilisation(rows, title, count)


def add_utilisation(rows: Rows, title: str, count: int) -> None:
    """Adds rates to the row, and what limits it."""
    row = rows.found[title]
    rates = {
        name: 1e3 * count / row[name]["ms"] for name in ("bare encoder", "loader alone") if "ms" in row[name]
    }
    if len(rates) == 2 and "ms" in row["vq"]:
        row["facts"] |= {f"{name} images/s": rate for name, rate in rates.items()}
        row["facts"]["utilisation"] = row["bare encoder"]["ms"] / row["vq"]["ms"]
        row["facts"]["slower side"] = min(rates, key=lambda name: rates[name])
        rows.keep(title, row)


if __name__ == "__main__":
    main()
