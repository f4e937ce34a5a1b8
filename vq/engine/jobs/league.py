"""Trains quantizers against each other: the same networks, data, budget and seeds; one table."""

import csv
import hashlib
import io
import json
import math
import multiprocessing
import os
import resource
import signal
import statistics
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch

from vq.engine import assembly
from vq.engine.loop.launch import Machine
from vq.errors import UserError
from vq.files import read_json, write_atomically
from vq.ops.images import save_png, to_signed_unit
from vq.ops.keyed import stable_hash
from vq.text import file_name, markdown, printable, spreadsheet_cell

Tree = Mapping[str, Any]
Row = dict[str, Any]
PAGES_OF_MANY = ("contestants", "tokenizers")
COLUMNS = (
    ("psnr", "PSNR (dB)", "{:.2f}"),
    ("l1_unit", "L1 [0,1]", "{:.4f}"),
    ("codebook_usage", "usage", "{:.1%}"),
    ("perplexity", "perplexity", "{:.0f}"),
    ("codebook_size", "codes", "{:.0f}"),
    ("bits_per_token", "bits a token", "{:.1f}"),
    ("tokens_per_image", "tokens an image", "{:.0f}"),
    ("bits_per_image", "bits an image", "{:.0f}"),
    ("train_eval_mse", "eval / train MSE", "{:.2f}"),
    ("images_per_second", "images/s", "{:.0f}"),
    ("peak_mib", "peak MiB", "{:.0f}"),
)


class ContestantError(UserError, ValueError):
    """A contestant that cannot be trained as the page says."""


def settings_key(tree: Tree, name: str, seed: int, steps: int) -> str:
    """Changes with anything that changes a result, so that old results are not taken for new ones."""
    if name in tree.get("tokenizers", {}):
        relevant = {k: v for k, v in contestant_tree(tree, name).items() if k not in PAGES_OF_MANY}
    else:
        relevant = {k: v for k, v in tree.items() if k not in PAGES_OF_MANY}
        relevant["contestant"] = tree["contestants"][name]
    text = json.dumps([relevant, seed, steps], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def result_of(tree: Tree, name: str, seed: int, steps: int, folder: Path) -> Row:
    """The row of one contestant and seed: read if it is there, trained in a process of its own if not.

    A process of its own makes the peak memory that of this contestant alone.

    Raises:
        ContestantError: If it cannot be trained, for a reason that a user can mend.
        OSError: If its files cannot be read or written.
        RuntimeError: If its training failed otherwise; the traceback is on the console.
    """
    path = folder / f"{file_name(name)}_seed{seed}_{settings_key(tree, name, seed, steps)}.json"
    if not path.exists():
        context = multiprocessing.get_context("spawn")
        answer, reply = context.Pipe(duplex=False)
        arguments = (tree, name, seed, steps, path, torch.get_num_threads())
        process = context.Process(target=_train_one, args=(arguments, reply))
        process.start()
        reply.close()
        try:
            process.join()
        finally:  # a signal to this process ends the other one too
            _end(process)
        if process.exitcode != 0 or not path.exists():
            try:
                error: Exception = answer.recv()
            except EOFError:  # it ended without a word
                error = RuntimeError(
                    f"contestant {name!r}, seed {seed}: training ended with code {process.exitcode}"
                )
            raise error
    return _read_row(path, name)


def _read_row(path: Path, name: str) -> Row:
    try:
        row = read_json(path)
        if not isinstance(row, dict) or row.get("name") != name:
            raise ValueError(f"expected an object with the name {name!r}")
        for key, _, _ in COLUMNS:
            if key in row and (isinstance(row[key], bool) or not isinstance(row[key], int | float)):
                raise ValueError(f"{key}: expected a number")
        if missing := {"psnr", "codebook_usage", "bits_per_token"} - row.keys():
            raise ValueError(f"{min(missing)} is missing")
    except (OSError, ValueError) as error:
        raise ContestantError(
            f"{path}: not a result of vq.compare: {printable(str(error))}; remove it, and it is computed again"
        ) from error
    return row


def _end(process: BaseProcess) -> None:
    """Ends a child that is still at work, with force if it does not obey."""
    if process.is_alive():
        process.terminate()
        process.join(timeout=3)
    if process.is_alive():
        process.kill()
        process.join()


def _end_with_parent() -> None:
    """Ends this process when its parent is gone, however that ended; only the parent answers Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _train_one(arguments: tuple[Tree, str, int, int, Path, int], reply: Connection) -> None:
    """Trains one contestant in this process; a reason to end that a user can mend is sent to the parent."""
    _, name, seed, *_ = arguments
    try:
        _train(arguments)
    except UserError as error:
        reply.send(ContestantError(f"contestant {name!r}, seed {seed}: {error}"))
    except OSError as error:
        reply.send(error)


def _train(arguments: tuple[Tree, str, int, int, Path, int]) -> None:
    tree, name, seed, steps, path, threads = arguments
    _end_with_parent()
    torch.set_num_threads(threads)
    machine = Machine(device="cpu", rank=0, world_size=1, threads=threads, autocast=False)
    row = train_contestant(tree, name, seed, steps, machine, picture=path.with_suffix(".png"))
    write_atomically(path, json.dumps(row, indent=2))


def contestant_tree(tree: Tree, name: str) -> dict[str, Any]:
    """The page with one contestant's quantizer in the tokenizer, or with a whole tokenizer of its own."""
    if name in tree.get("tokenizers", {}):
        return dict(tree) | {"tokenizer": tree["tokenizers"][name]}
    return dict(tree) | {
        "tokenizer": {**assembly.section(tree, "tokenizer"), "quantizer": tree["contestants"][name]}
    }


def check_contestants(tree: Tree, names: Sequence[str]) -> None:
    """Builds every contestant once, so that one which cannot be built is named before the first training.

    Raises:
        ConfigError: For the first that cannot be built.
    """
    for name in names:
        assembly.make_tokenizer(contestant_tree(tree, name))


def train_contestant(
    tree: Tree, name: str, seed: int, steps: int, machine: Machine, *, picture: Path | None = None
) -> Row:
    """Trains one contestant from the page's seed and scores it on the validation set."""
    own = contestant_tree(tree, name)
    tokenizer = assembly.make_tokenizer(own, seed=seed).to(machine.device).train()
    quantizer = tokenizer.quantizer
    metrics = [
        node | ({"codebook_size": tokenizer.codebook_size} if "codebook_size" in node else {})
        for node in own["evaluator"]["metrics"]
    ]
    own["evaluator"] = {**own["evaluator"], "metrics": metrics}
    own["trainer"] = {**own["trainer"], "max_steps": steps}
    step = assembly.make_step(own, tokenizer, seed=seed)
    loader, val_loader = assembly.make_loader(own, "train_data"), assembly.make_loader(own, "val_data")
    evaluator = assembly.make_evaluator(own)
    batches = assembly.grouped_batches(loader, seed, step.accumulate, 0)
    seconds: list[float] = []
    squared: list[float] = []
    for number in range(steps):
        group = next(batches)
        torch.manual_seed(stable_hash(seed, "step", number))
        start = time.perf_counter()
        scalars = step(group, number)
        seconds.append(time.perf_counter() - start)
        if number >= steps - 20:
            squared.append(float(scalars.get("loss/mse", scalars["loss/total"])))
    scores = evaluator.evaluate(tokenizer, val_loader).scores
    if picture is not None:
        save_png(evaluator.picture(tokenizer, val_loader), picture)
    # Indices for each position of the grid, also where a whole grid shares a sequence of them.
    stack = math.prod(quantizer.index_shape) / math.prod(quantizer.grid)
    height, width = val_loader.image_size
    indices = math.prod(tokenizer.indices_shape(height, width))
    return {
        "name": name,
        "seed": seed,
        "steps": steps,
        **scores,
        "codebook_size": tokenizer.codebook_size,
        "bits_per_token": math.log2(tokenizer.codebook_size) * stack,
        "tokens_per_image": indices / stack,
        "bits_per_image": math.log2(tokenizer.codebook_size) * indices,
        "train_eval_mse": scores["mse_unit"] / statistics.mean(_train_mse(tokenizer, loader, seed)),
        "images_per_second": loader.batch_size / statistics.median(seconds),
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "last_loss": statistics.mean(squared),
    }


@torch.no_grad()
def _train_mse(tokenizer: Any, loader: Any, seed: int, batches: int = 4) -> list[float]:
    """The squared error in *training* mode (soft or noisy codes), [0, 1] pixels, with nothing learnt from it."""
    kept = {n: t.clone() for n, t in tokenizer.state_dict().items()}
    tokenizer.train()
    errors = []
    for _, batch in zip(range(batches), loader.train_batches(seed=seed), strict=False):
        image = to_signed_unit(batch["image"])
        error = (tokenizer(image).reconstruction.clamp(-1, 1) - image).square().mean() / 4
        errors.append(float(error))
    tokenizer.load_state_dict(kept)
    return errors


def summarise(rows: Sequence[Row]) -> list[Row]:
    """Mean and spread over the seeds of each contestant, best PSNR first."""
    names = list(dict.fromkeys(row["name"] for row in rows))
    table = []
    for name in names:
        own = [row for row in rows if row["name"] == name]
        summary: Row = {"name": name, "seeds": len(own)}
        for key, _, _ in columns(rows):
            values = [row[key] for row in own]
            summary[key] = statistics.mean(values)
            summary[f"{key}_spread"] = max(values) - min(values)
        table.append(summary)
    return sorted(table, key=lambda row: -row["psnr"])


def columns(rows: Sequence[Row]) -> list[tuple[str, str, str]]:
    """The columns that say something: those that every row has, the size of an image only where it differs."""
    shown = [column for column in COLUMNS if all(column[0] in row for row in rows)]
    if len({row.get("tokens_per_image") for row in rows}) == 1:
        shown = [column for column in shown if not column[0].endswith("_per_image")]
    return shown


def write_table(table: Sequence[Row], title: str, folder: Path) -> list[Path]:
    """Writes `table.md`, `table.csv` and `table.png`; names are text in each of them."""
    text, comma, plot = (folder / f"table.{end}" for end in ("md", "csv", "png"))
    shown = columns(table)
    header = ["name", *(title for _, title, _ in shown)]
    lines = [markdown(title), "", "| " + " | ".join(header) + " |", "|---" + "|---:" * len(shown) + "|"]
    for row in table:
        cells = [markdown(row["name"])]
        for key, _, form in shown:
            spread = f" ± {row[key + '_spread'] / 2:.2f}" if key == "psnr" and row["seeds"] > 1 else ""
            cells.append(form.format(row[key]) + spread)
        lines.append("| " + " | ".join(cells) + " |")
    write_atomically(text, "\n".join(lines) + "\n")
    content = io.StringIO(newline="")
    writer = csv.DictWriter(content, list(table[0]))
    writer.writeheader()
    writer.writerows({**row, "name": spreadsheet_cell(row["name"])} for row in table)
    write_atomically(comma, content.getvalue())
    _plot(table, title, plot)
    return [text, comma, plot]


def _plot(table: Sequence[Row], title: str, path: Path) -> None:
    """A bar of PSNR for each contestant, best on top; the colour says how much of the codebook is in use."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(9, 0.32 * len(table) + 1.5), layout="constrained")
    colours = mpl.colormaps["viridis"]([row["codebook_usage"] for row in table])
    bars = axes.barh(range(len(table)), [row["psnr"] for row in table], color=colours)
    axes.set_yticks(range(len(table)), [printable(row["name"]) for row in table], parse_math=False)
    labels = [f"{row['psnr']:.2f} dB, {row['bits_per_token']:.0f} bits a token" for row in table]
    axes.bar_label(bars, labels, padding=3, fontsize=8)
    axes.invert_yaxis()
    lowest, highest = min(row["psnr"] for row in table), max(row["psnr"] for row in table)
    span = max(highest - lowest, 1.0)
    axes.set(xlim=(lowest - 0.3 * span, highest + 0.4 * span), xlabel="validation PSNR (dB)")
    axes.set_title(printable(title), parse_math=False)
    figure.colorbar(mpl.cm.ScalarMappable(cmap="viridis"), ax=axes, label="codebook usage")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def platform_line() -> str:
    """What the figures were measured on."""
    return f"torch {torch.__version__}, {torch.get_num_threads()} threads, Python {sys.version.split()[0]}"
