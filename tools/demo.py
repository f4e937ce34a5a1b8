"""The newcomer's path on real pictures: train, validate, use. `make demo` runs it.

No GPU and no download: the pictures (emoji) come inside a package. It runs the same commands that you would
type, shows each, and keeps to a number of training steps and a limit in minutes, whichever comes first.
"""

import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

RUN = Path("work_dirs/demo/fsq")
CONFIG = "configs/fsq/1000_emoji.py"
console = Console()


def command(title: str, module: str, *arguments: object) -> None:
    """Shows a command and runs it."""
    words = ["-m", f"vq.{module}", *map(str, arguments)]
    console.rule(f"[bold]{title}")
    console.print(f"$ python {' '.join(words)}", style="cyan", highlight=False, soft_wrap=True)
    subprocess.run([sys.executable, *words], check=True)


def save_examples(folder: Path, count: int) -> list[Path]:
    """Writes a few validation pictures, which the training never saw, as PNG files."""
    from vq.data import EmojiDataset
    from vq.ops.images import save_png

    dataset = EmojiDataset(split="val")
    paths = []
    for i in range(count):
        index = (2 * i + 1) * len(dataset) // (2 * count)
        paths.append(folder / f"{i}.png")
        save_png(dataset.read(index), paths[-1])
    return paths


def report(seconds: float) -> None:
    """The scores beside what a picture of single-coloured blocks would get, and where to look."""
    newest = max((RUN / "val").glob("iter_*"), key=lambda p: int(p.name.removeprefix("iter_")))
    record = json.loads((newest / "metrics.json").read_text())
    scores = record["scores"]
    table = Table(title=f"{newest.name}: {record['num_images']} emoji that the training never saw")
    for column in ("", "this run", "best single colour per 8 x 8 block"):
        table.add_column(column, justify="right")
    table.add_row("PSNR (dB)", f"{scores['psnr']:.2f}", f"{block_psnr():.2f}")
    table.add_row("codes in use", f"{100 * scores['codebook_usage']:.1f} %", "-")
    table.add_row("bits a picture", f"{64 * 9.97:.0f}", f"{64 * 24}")
    console.rule("[bold]done")
    console.print(table)
    console.print(f"{seconds / 60:.1f} minutes. Look at:", highlight=False)
    for path, what in (
        (newest / "reconstructions.png", "originals above their reconstructions"),
        (RUN / "inference", "one picture: beside its reconstruction, its indices as a map and as .npy"),
        (RUN / "images", "the same pictures as training went on"),
        (RUN / "metrics.jsonl", "losses and scores; tensorboard --logdir " + str(RUN)),
    ):
        console.print(f"  {path}  {what}", highlight=False, soft_wrap=True)
    console.print("In Python:", highlight=False)
    console.print(
        f'  tokenizer = vq.load("{RUN}"); indices = tokenizer.encode(images)', highlight=False, soft_wrap=True
    )


def block_psnr() -> float:
    """The PSNR of the validation pictures with each 8 x 8 block replaced by its mean colour."""
    import torch
    from torch.nn import functional as F

    from vq.data import EmojiDataset, ImageLoader, Resize
    from vq.metrics import PSNR
    from vq.ops.images import to_signed_unit

    loader = ImageLoader(dataset=EmojiDataset(split="val"), transforms=[Resize(size=64)], batch_size=64)
    metric = PSNR()
    for batch in loader.pass_batches():
        image = to_signed_unit(batch["image"])
        blocks = F.avg_pool2d(image, 8).repeat_interleave(8, -1).repeat_interleave(8, -2)
        metric.update(
            image=image, reconstruction=blocks, indices=torch.zeros(len(image), 8, 8, dtype=torch.int64)
        )
    return metric.compute()["psnr"]


def main() -> None:
    """Runs the demo."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=1000, help="training steps (default 1000)")
    parser.add_argument("--minutes", type=float, default=3.0, help="end training after so long (default 3)")
    args = parser.parse_args()
    start = time.monotonic()
    if RUN.exists():
        shutil.rmtree(RUN)  # the demo's own folder: it starts anew each time
    limits = [f".trainer.max_steps:{args.steps}", f".trainer.max_minutes:{args.minutes}"]
    name = RUN.relative_to("work_dirs")
    command("1. train", "train", name, CONFIG, "--override", *limits)
    command("2. validate", "val", name, CONFIG)
    pictures = save_examples(RUN / "pictures", 4)
    command("3. pictures to indices", "inference", RUN, *pictures, "--size", 64, "--out", RUN / "inference")
    indices = [RUN / "inference" / f"{p.stem}_indices.npy" for p in pictures]
    command("4. indices back to pictures", "inference", RUN, *indices, "--out", RUN / "inference")
    report(time.monotonic() - start)


if __name__ == "__main__":
    main()
