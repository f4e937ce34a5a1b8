"""A first tour on real images: train, validate, encode and decode, generate. `make demo` runs it.

It needs no GPU, and the images (emoji, handwritten digits) come inside packages. Each command is shown as you would
type it. A training ends after a number of steps or of minutes, whichever comes first.
"""

import argparse
import json
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tools.judge_digits import judge

RUN = Path("work_dirs/demo/fsq")
CONFIG = "fsq/1000_emoji"
DIGITS = Path("work_dirs/demo/digits")
DIGITS_CONFIG = "fsq/240_digits"
WRITER = Path("work_dirs/demo/llama_digits")
WRITER_CONFIG = "ar/llama_digits"
LONGER = {  # more generators, for --full. Name of the run: page, its tokenizer, steps, limit in minutes
    "llama_emoji": ("ar/llama_emoji", RUN, 1500, 30),
    "maskgit_digits": ("maskgit/digits", DIGITS, 3000, 15),
}
console = Console()


def command(title: str, module: str, *arguments: object) -> None:
    """Shows a command and runs it."""
    words = [module, *map(str, arguments)]
    console.rule(f"[bold]{title}")
    console.print(f"$ vq {shlex.join(words)}", style="cyan", highlight=False, markup=False, soft_wrap=True)
    subprocess.run([sys.executable, "-m", "vq", *words], check=True)


def save_examples(folder: Path, count: int) -> list[Path]:
    """Writes a few images of the validation set as PNG files."""
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
    """Prints the scores, those of images of single-coloured blocks for comparison, and where the files are."""
    newest = max((RUN / "val").glob("iter_*"), key=lambda p: int(p.name.removeprefix("iter_")))
    record = json.loads((newest / "metrics.json").read_text())
    scores = record["scores"]
    table = Table(title=f"{newest.name}: {record['num_images']} held-out emoji")
    for column in ("", "this run", "best single colour per 8 x 8 block"):
        table.add_column(column, justify="right")
    table.add_row("PSNR (dB)", f"{scores['psnr']:.2f}", f"{block_psnr():.2f}")
    table.add_row("codes in use", f"{100 * scores['codebook_usage']:.1f} %", "-")
    table.add_row("bits per image", f"{64 * 9.97:.0f}", f"{64 * 24}")
    console.rule("[bold]done")
    console.print(table)
    console.print(f"{seconds / 60:.1f} minutes. The files:", highlight=False)
    for path, what in (
        (newest / "reconstructions.png", "originals above their reconstructions"),
        (RUN / "inference", "four images: their reconstructions, and their indices as a map and as .npy"),
        (RUN / "images", "reconstructions in the course of the training"),
        (RUN / "report.html", "losses, scores, pictures and speed on one page; open it in a browser"),
    ):
        console.print(f"  {path}  {what}", highlight=False, soft_wrap=True, markup=False)
    lines = ("In Python:", f'  tokenizer = vq.load("{RUN}"); indices = tokenizer.encode(images)')
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True, markup=False)


def block_psnr() -> float:
    """The PSNR of the validation images with each 8 x 8 block replaced by its mean colour."""
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


def write_digits(args: argparse.Namespace) -> None:
    """Trains a tokenizer of digits and a generator over its tokens, and judges the generated digits."""
    for folder in (DIGITS, WRITER):
        if folder.exists():
            shutil.rmtree(folder)
    digits, writer = DIGITS.relative_to("work_dirs"), WRITER.relative_to("work_dirs")
    limit = f".trainer.max_minutes:{args.minutes}"
    command("5. a tokenizer of handwritten digits", "train", digits, DIGITS_CONFIG, "--override", limit)
    command("6. the tokens of the training set", "tokenize", digits, "--train")
    command("   and those of the validation set", "tokenize", digits)
    options = ["--config-options", f"it_state_dict::{DIGITS}", f"max_steps:{args.writer_steps}"]
    command(
        "7. a generator of tokens, given the class",
        "train",
        writer,
        WRITER_CONFIG,
        *options,
        "--override",
        limit,
    )
    made = WRITER / "generated"
    command("8. new digits", "generate", writer, "--num-per-class", 10, "--out", made)
    console.rule("[bold]9. a classifier judges them")
    console.print("$ python -m tools.judge_digits", str(made), style="cyan", highlight=False, markup=False)
    scores = judge(made)
    console.print(
        f"A classifier that recognises {scores['real']:.1%} of held-out real digits recognises the requested digit in "
        f"{scores['generated']:.1%} of {scores['num_generated']:.0f} generated images. They are in {made}_grid.png",
        highlight=False,
    )


def train_longer() -> None:
    """Trains the generators of `LONGER` over the tokenizers of the demo."""
    for name, (page, tokenizer, steps, minutes) in LONGER.items():
        writer = DIGITS.with_name(name)
        if writer.exists():
            shutil.rmtree(writer)
        source, target = tokenizer.relative_to("work_dirs"), writer.relative_to("work_dirs")
        for split in ([], ["--train"]):
            command(f"the tokens for {page}", "tokenize", source, *split)
        options = ["--config-options", f"it_state_dict::{tokenizer}"]
        length = [f"max_steps:{steps}"]
        limit = ["--override", f".trainer.max_minutes:{minutes}"]
        command(f"a longer training: {page}", "train", target, page, *options, *length, *limit)
        made = ["--num-per-class", 10, "--out", writer / "generated"]
        command("new images", "generate", target, *made)
    scores = judge(DIGITS.with_name("maskgit_digits") / "generated")
    console.print(
        f"The classifier recognises the requested digit in {scores['generated']:.1%} of MaskGIT's images.",
        highlight=False,
    )


def main() -> None:
    """Runs the demo."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--steps", type=int, default=1000, help="training steps of the first tokenizer (default 1000)"
    )
    parser.add_argument(
        "--minutes", type=float, default=2.5, help="time limit of each training (default 2.5)"
    )
    parser.add_argument(
        "--writer-steps", type=int, default=1500, help="training steps of the generator (default 1500)"
    )
    parser.add_argument("--full", action="store_true", help="train two more generators, for 25 minutes")
    args = parser.parse_args()
    start = time.monotonic()
    if RUN.exists():
        shutil.rmtree(RUN)  # the demo starts anew each time
    limits = [f".trainer.max_steps:{args.steps}", f".trainer.max_minutes:{args.minutes}"]
    name = RUN.relative_to("work_dirs")
    command("1. train", "train", name, CONFIG, "--override", *limits)
    command("2. validate", "val", name)
    pictures = save_examples(RUN / "pictures", 4)
    command("3. images to indices", "inference", RUN, *pictures, "--size", 64, "--out", RUN / "inference")
    indices = [RUN / "inference" / f"{p.stem}_indices.npy" for p in pictures]
    command("4. indices to images", "inference", RUN, *indices, "--out", RUN / "inference")
    command("   the training on one page", "report", name)
    report(time.monotonic() - start)
    write_digits(args)
    if args.full:
        train_longer()
    console.print(f"{(time.monotonic() - start) / 60:.1f} minutes in total.", highlight=False)


if __name__ == "__main__":
    main()
