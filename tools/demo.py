"""The newcomer's path on real pictures: train, validate, use, generate. `make demo` runs it.

No GPU and no download: the pictures (emoji, handwritten digits) come inside packages. It runs the same
commands that you would type, shows each, and keeps to a number of training steps and a limit in minutes,
whichever comes first.
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

from tools.judge_digits import judge

RUN = Path("work_dirs/demo/fsq")
CONFIG = "configs/fsq/1000_emoji.py"
DIGITS = Path("work_dirs/demo/digits")
DIGITS_CONFIG = "configs/fsq/240_digits.py"
WRITER = Path("work_dirs/demo/llama_digits")
WRITER_CONFIG = "configs/ar/llama_digits.py"
LONGER = {  # generators that --full trains too: name, page, its tokenizer, steps, at most so many minutes
    "llama_emoji": ("configs/ar/llama_emoji.py", RUN, 1500, 30),
    "maskgit_digits": ("configs/maskgit/digits.py", DIGITS, 3000, 15),
}
console = Console()


def command(title: str, module: str, *arguments: object) -> None:
    """Shows a command and runs it."""
    words = ["-m", f"vq.{module}", *map(str, arguments)]
    console.rule(f"[bold]{title}")
    console.print(f"$ python {' '.join(words)}", style="cyan", highlight=False, markup=False, soft_wrap=True)
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
        console.print(f"  {path}  {what}", highlight=False, soft_wrap=True, markup=False)
    console.print("In Python:", highlight=False)
    console.print(
        f'  tokenizer = vq.load("{RUN}"); indices = tokenizer.encode(images)',
        highlight=False,
        soft_wrap=True,
        markup=False,
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


def write_digits(args: argparse.Namespace) -> None:
    """Pictures of digits to tokens, a generator over the tokens, new digits, and who recognises them."""
    for folder in (DIGITS, WRITER):
        if folder.exists():
            shutil.rmtree(folder)
    digits, writer = DIGITS.relative_to("work_dirs"), WRITER.relative_to("work_dirs")
    limit = f".trainer.max_minutes:{args.minutes}"
    command("5. a tokenizer of handwritten digits", "train", digits, DIGITS_CONFIG, "--override", limit)
    command("6. its tokens", "tokenize", digits, "--train")
    command("   and those of the digits kept for validation", "tokenize", digits)
    options = ["--config-options", f"it_state_dict::{DIGITS}", f"max_steps:{args.writer_steps}"]
    command("7. a generator: class to tokens", "train", writer, WRITER_CONFIG, *options, "--override", limit)
    made = WRITER / "generated"
    command("8. new digits", "generate", writer, "--num-per-class", 10, "--out", made)
    console.rule("[bold]9. who recognises them")
    console.print("$ python -m tools.judge_digits", str(made), style="cyan", highlight=False, markup=False)
    scores = judge(made)
    console.print(
        f"A classifier that knows {scores['real']:.1%} of real digits it has not seen takes "
        f"{scores['generated']:.1%} of {scores['num_generated']:.0f} generated ones for the digit that was asked for. "
        f"They are in {made}_grid.png",
        highlight=False,
    )


def train_longer() -> None:
    """The generators of `LONGER`, over the tokenizers that the demo has trained."""
    for name, (page, tokenizer, steps, minutes) in LONGER.items():
        writer = DIGITS.with_name(name)
        if writer.exists():
            shutil.rmtree(writer)
        source, target = tokenizer.relative_to("work_dirs"), writer.relative_to("work_dirs")
        for split in ([], ["--train"]):
            command(f"tokens for {page}", "tokenize", source, *split)
        options = ["--config-options", f"it_state_dict::{tokenizer}"]
        length = [f"max_steps:{steps}"]
        limit = ["--override", f".trainer.max_minutes:{minutes}"]
        command(f"a longer training: {page}", "train", target, page, *options, *length, *limit)
        made = ["--num-per-class", 10, "--out", writer / "generated"]
        command("new pictures", "generate", target, *made)
    scores = judge(DIGITS.with_name("maskgit_digits") / "generated")
    console.print(
        f"The classifier takes {scores['generated']:.1%} of MaskGIT's digits for the digit that was asked for.",
        highlight=False,
    )


def main() -> None:
    """Runs the demo."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=1000, help="training steps (default 1000)")
    parser.add_argument(
        "--minutes", type=float, default=2.5, help="end each training after so long (default 2.5)"
    )
    parser.add_argument("--writer-steps", type=int, default=1500, help="of the generator (default 1500)")
    parser.add_argument("--full", action="store_true", help="then train two more generators (25 minutes)")
    args = parser.parse_args()
    start = time.monotonic()
    if RUN.exists():
        shutil.rmtree(RUN)  # the demo's own folder: it starts anew each time
    limits = [f".trainer.max_steps:{args.steps}", f".trainer.max_minutes:{args.minutes}"]
    name = RUN.relative_to("work_dirs")
    command("1. train", "train", name, CONFIG, "--override", *limits)
    command("2. validate", "val", name)
    pictures = save_examples(RUN / "pictures", 4)
    command("3. pictures to indices", "inference", RUN, *pictures, "--size", 64, "--out", RUN / "inference")
    indices = [RUN / "inference" / f"{p.stem}_indices.npy" for p in pictures]
    command("4. indices back to pictures", "inference", RUN, *indices, "--out", RUN / "inference")
    report(time.monotonic() - start)
    write_digits(args)
    if args.full:
        train_longer()
    console.print(f"{(time.monotonic() - start) / 60:.1f} minutes in all.", highlight=False)


if __name__ == "__main__":
    main()
