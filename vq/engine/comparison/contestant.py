"""One contestant with one seed: its config, the run that trains it, and the row of its results."""

import hashlib
import json
import math
import os
import platform
import resource
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vq import __version__
from vq.config import contestant_arguments, contestant_tree, page_text, trained_section
from vq.data import ImageLoader
from vq.engine import assembly
from vq.engine.assembly.recording import recorded
from vq.errors import ConfigError, UserError
from vq.files import read_json, write_atomically
from vq.ops.images import to_signed_unit
from vq.text import file_name, printable
from vq.tokenizers import Tokenizer
from vq.tokenizers.checkpoint import find_weights, load_weights

Row = dict[str, Any]
Train = Callable[[Sequence[str]], Mapping[str, float]]
"""The command `vq train`: it takes the words after its name, and returns the scores of the last validation."""
VERSION = f"vq {__version__}, rows 3"
"""Rows of other versions are computed again. The number is raised when equal pages train to other numbers."""


class ContestantError(UserError, ValueError):
    """A contestant that cannot be trained as the page says, or a stored row that cannot be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contestant:
    """A contestant of an experiment, with one seed.

    Attributes:
        experiment: The name of the experiment.
        name: The name of the contestant on the page.
        seed: The `--seed` of its training.
        config: Its resolved config, which stands alone.
        arguments: Its options of `vq train`.
    """

    experiment: str
    name: str
    seed: int
    config: Mapping[str, Any]
    arguments: Sequence[str]

    @property
    def page_sha256(self) -> str:
        """The hash of everything that decides the result but the seed: the config and the options."""
        text = json.dumps([self.config, list(self.arguments)], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def label(self) -> str:
        """Its name and seed, as a file name."""
        return f"{file_name(self.name)}_seed{self.seed}"

    @property
    def run(self) -> str:
        """The NAME of its run in work_dirs; another config has another run."""
        return f"compare/{self.experiment}/{self.label}_{self.page_sha256[:8]}"

    @property
    def steps(self) -> int:
        """How many optimizer steps it is trained for."""
        steps: int = self.config["trainer"]["max_steps"]
        return steps

    def command(self, experiment: str) -> str:
        """The command that computes its row, given the one that computes all rows of the experiment."""
        return f"{experiment} --only {shlex.quote(self.name)} --seeds {self.seed}"

    def row_file(self, folder: Path) -> Path:
        """The file of its row in the folder of an experiment."""
        return folder / "rows" / f"{self.label}.json"

    def stored_row(self, folder: Path) -> Row | None:
        """The row that an earlier command wrote; None if there is none of this config and this version.

        Raises:
            ContestantError: If the file is not such a row.
        """
        file = self.row_file(folder)
        if not file.exists():
            return None
        try:
            row = read_json(file)
            if not isinstance(row, dict) or not isinstance(row.get("scores"), dict):
                raise ValueError("expected an object with scores")
            for key, value in {**row["scores"], **row.get("measured", {})}.items():
                if isinstance(value, bool) or not isinstance(value, int | float):
                    raise ValueError(f"{key}: expected a number")
        except (OSError, ValueError, TypeError) as error:
            raise ContestantError(
                f"{file}: not a row of vq compare: {printable(str(error))}; remove it, and it is computed again"
            ) from error
        same = {"name": self.name, "seed": self.seed, "page_sha256": self.page_sha256, "version": VERSION}
        return row if same.items() <= row.items() else None


def contestants_of(tree: Mapping[str, Any], experiment: str, seeds: Sequence[int]) -> list[Contestant]:
    """Every contestant of a page with every seed, seeds last; each is built once.

    The weights outside the run are recorded for each contestant, because a contestant may name others than the page.

    Raises:
        ConfigError: For the first one that cannot be built.
    """
    found = []
    for name in tree["contestants"]:
        config = _with_codebook_size(recorded(contestant_tree(tree, name)), name)
        arguments = contestant_arguments(tree, name)
        found += [
            Contestant(experiment=experiment, name=name, seed=seed, config=config, arguments=arguments)
            for seed in seeds
        ]
    return found


def _with_codebook_size(config: dict[str, Any], name: str) -> dict[str, Any]:
    """The config with metrics that count the codes of its own tokenizer; what is trained is built once."""
    trained = trained_section(config)
    try:
        if trained == "generator":
            with torch.device("meta"):
                assembly.make_model(config)
        if trained != "tokenizer":
            return config
        tokenizer = assembly.make_tokenizer(config)
    except ConfigError as error:
        raise ConfigError(f"contestants.{name}.{error}") from error
    evaluator = dict(assembly.section(config, "evaluator"))
    evaluator["metrics"] = [
        {**node, "codebook_size": tokenizer.codebook_size} if "codebook_size" in node else node
        for node in evaluator.get("metrics", [])
    ]
    return {**config, "evaluator": evaluator}


def train_and_measure(contestant: Contestant, train: Train, *, work_dirs: Path, device: str) -> Row:
    """Trains a contestant with `vq train`, from where an earlier command stopped, and returns its row.

    For a process of its own, whose output becomes `console.txt` in the run folder.

    Args:
        contestant: The contestant.
        train: The command `vq train`.
        work_dirs: The folder of all runs.
        device: The `--device` of the training.
    """
    run = work_dirs / contestant.run
    page = run.parent / "pages" / f"{run.name}.py"
    run.mkdir(parents=True, exist_ok=True)
    with (run / "console.txt").open("ab") as console:
        os.dup2(console.fileno(), 1)
        os.dup2(console.fileno(), 2)
    write_atomically(page, page_text(contestant.config))
    words = [
        contestant.run,
        str(page),
        "--seed",
        str(contestant.seed),
        "--device",
        device,
        *contestant.arguments,
    ]
    is_continued = any((run / "checkpoints").glob("iter_*"))
    started = time.perf_counter()
    scores = train([*words, "--auto-resume"])
    measured = {"seconds": time.perf_counter() - started, **_resources(device)}
    return {
        "name": contestant.name,
        "seed": contestant.seed,
        "page_sha256": contestant.page_sha256,
        "version": VERSION,
        "steps": contestant.steps,
        "scores": dict(scores),
        "measured": {**measured, **_measured(contestant, run, scores)},
        "stamp": _stamp(contestant.config),
        "is_continued": is_continued,
        "train_command": shlex.join(["vq", "train", *words]),
        "hardware": _hardware(device),
        "finished": time.strftime("%Y-%m-%d %H:%M:%S"),
    }


def _resources(device: str) -> dict[str, float]:
    """The processor time and the peak memory of this process and those that it has started."""
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    peak = usage[0].ru_maxrss / 1024
    if device == "cuda":
        peak = torch.cuda.max_memory_allocated() / 2**20
    return {"cpu_seconds": sum(each.ru_utime + each.ru_stime for each in usage), "peak_mib": peak}


def _hardware(device: str) -> dict[str, Any]:
    return {
        "device": torch.cuda.get_device_name() if device == "cuda" else device,
        "platform": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": sys.version.split()[0],
    }


def _stamp(config: Mapping[str, Any]) -> dict[str, Any]:
    """What the scores were computed on, and how, so that those of two rows may be compared."""
    evaluator = assembly.make_evaluator(config) if trained_section(config) == "tokenizer" else None
    stamps = {type(metric).__name__: metric.stamp() for metric in getattr(evaluator, "metrics", [])}
    data = assembly.make_loader(config, "val_data")
    return {
        "num_images": data.num_samples,
        "dataset": data.dataset.describe(),
        "weights": "averaged" if config["train_step"].get("weight_ema") else "raw",
        "metrics": {name: stamp for name, stamp in stamps.items() if stamp},
    }


def _measured(contestant: Contestant, run: Path, scores: Mapping[str, float]) -> dict[str, float]:
    """Speed, and what is known of a tokenizer besides its scores."""
    config = contestant.config
    found: dict[str, float] = {}
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    seconds = [row["time/step"] for row in map(json.loads, lines) if "time/step" in row]
    if seconds:
        found["images_per_second"] = config["train_data"]["batch_size"] / statistics.median(seconds)
    if trained_section(config) != "tokenizer":
        return found
    tokenizer = assembly.make_tokenizer(config)
    load_weights(tokenizer, [find_weights(run / "checkpoints" / f"iter_{contestant.steps}")])
    loader = assembly.make_loader(config, "train_data")
    if not isinstance(loader, ImageLoader):
        return found
    found |= sizes_of(tokenizer, loader.image_size)
    if "mse_unit" in scores:
        found["train_eval_mse"] = scores["mse_unit"] / _train_mse(tokenizer, loader, contestant.seed)
    return found


def sizes_of(tokenizer: Tokenizer, image_size: tuple[int, int]) -> dict[str, float]:
    """How many codes there are, and how many bits a token and an image take."""
    quantizer = tokenizer.quantizer
    # Indices per position of the grid, also where the whole grid shares one sequence of them.
    stack = math.prod(quantizer.index_shape) / math.prod(quantizer.grid)
    num_indices = math.prod(tokenizer.indices_shape(*image_size))
    return {
        "codebook_size": float(tokenizer.codebook_size),
        "bits_per_token": math.log2(tokenizer.codebook_size) * stack,
        "tokens_per_image": num_indices / stack,
        "bits_per_image": math.log2(tokenizer.codebook_size) * num_indices,
    }


@torch.no_grad()
def _train_mse(tokenizer: Tokenizer, loader: ImageLoader, seed: int, batches: int = 4) -> float:
    """The squared error in *training* mode (soft or noisy codes), in [0, 1] pixels, of a tokenizer used up by it."""
    tokenizer.train()
    errors = []
    for _, batch in zip(range(batches), loader.train_batches(seed=seed), strict=False):
        image = to_signed_unit(batch["image"])
        errors.append(float((tokenizer(image).reconstruction.clamp(-1, 1) - image).square().mean() / 4))
    return statistics.mean(errors)
