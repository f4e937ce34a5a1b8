"""Trains quantizers against each other: the same networks, data, budget and seeds; one table."""

import hashlib
import json
import logging
import math
import resource
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from vq import packages
from vq.data import ImageLoader
from vq.engine import assembly
from vq.engine.evaluation.progress import progress_bar
from vq.engine.jobs.league_table import COLUMNS, Row, summarise, write_table
from vq.engine.jobs.own_process import call_in_own_process
from vq.engine.loop.step_runner import StepRunner
from vq.engine.loop.validation import Validation, averaged_weights
from vq.engine.steps.base import TrainStep
from vq.errors import ConfigError, UserError
from vq.files import read_json, write_atomically
from vq.ops.images import save_png, to_signed_unit
from vq.text import file_name, printable
from vq.tokenizers import Tokenizer

Tree = Mapping[str, Any]
logger = logging.getLogger(__name__)
CONTESTANTS = ("contestants", "tokenizers")
"""The sections that name contestants: quantizers for the page's tokenizer, or whole tokenizers."""
VERSION = 2
"""Raised when the same page, seed and steps train to other numbers, so that stored results are computed again."""
NUM_LAST_STEPS = 20
"""Over how many steps `last_loss` is averaged."""


class ContestantError(UserError, ValueError):
    """A contestant that cannot be trained as the page says, or a stored result that cannot be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class League:
    """The contestants of a page, each trained with every seed.

    Attributes:
        tree: The page.
        names: Its contestants that take part.
        seeds: One training of each contestant per seed.
        steps: Optimizer steps of each training.
        folder: Results and tables are written there; results that it holds are not computed again.
    """

    tree: Tree
    names: Sequence[str]
    seeds: Sequence[int]
    steps: int
    folder: Path

    def check(self) -> None:
        """Builds every contestant once, so that one which cannot be built is named before the first training.

        Raises:
            ConfigError: For the first that cannot be built, or that does not reconstruct images.
            MissingPackageError: If Matplotlib, which draws the table, is not installed.
        """
        packages.require("matplotlib", needed_by="vq compare")
        for name in self.names:
            tokenizer = assembly.make_tokenizer(contestant_tree(self.tree, name))
            if not tokenizer.has_image_decoder:
                raise ConfigError(
                    f"{name}: expected a tokenizer that reconstructs images, whose scores can be compared, got a "
                    f"{type(tokenizer).__name__}; give it a decoder (TokenizerWithDecoder)"
                )

    def run(self) -> list[Path]:
        """Trains what has no result yet, and returns the files of the table."""
        self.folder.mkdir(parents=True, exist_ok=True)
        rows = []
        progress = progress_bar()
        total = len(self.names) * len(self.seeds)
        task = progress.add_task(printable(self.folder.name), total=total, note="")
        with progress:
            for name, seed in [(name, seed) for name in self.names for seed in self.seeds]:
                progress.update(task, note=printable(name))
                row = result_of(self.tree, name, seed, self.steps, self.folder)
                usage = 100 * row["codebook_usage"]
                logger.info("%-14s seed %d: PSNR %.2f, usage %.1f %%", name, seed, row["psnr"], usage)
                rows.append(row)
                progress.advance(task)
        title = (
            f"{self.folder.name}: {self.steps} steps of {self.tree['train_data']['batch_size']} images, "
            f"{len(self.seeds)} seed(s); torch {torch.__version__}, {torch.get_num_threads()} threads, "
            f"Python {sys.version.split()[0]}"
        )
        return write_table(summarise(rows), title, self.folder)


def result_of(tree: Tree, name: str, seed: int, steps: int, folder: Path) -> Row:
    """The row of one contestant and seed: read if it has been computed, else computed and written.

    Each training has a process of its own, so that the peak memory is that of this contestant alone.

    Raises:
        ContestantError: If it cannot be trained, for a reason that a user can fix.
        OSError: If its files cannot be read or written.
        RuntimeError: If its training failed otherwise; the traceback is on the console.
    """
    file = folder / f"{file_name(name)}_seed{seed}_{settings_key(tree, name, seed, steps)}.json"
    if not file.exists():
        picture = file.with_suffix(".png")
        try:
            row = call_in_own_process(partial(train_contestant, tree, name, seed, steps, picture=picture))
        except UserError as error:
            raise ContestantError(f"contestant {name!r}, seed {seed}: {error}") from error
        except RuntimeError as error:
            raise RuntimeError(f"contestant {name!r}, seed {seed}: {error}") from error
        write_atomically(file, json.dumps(row, indent=2))
    return _read_row(file, name)


def settings_key(tree: Tree, name: str, seed: int, steps: int) -> str:
    """A hash of everything that decides a result, so that results of other settings are not taken for it."""
    own = {key: value for key, value in contestant_tree(tree, name).items() if key not in CONTESTANTS}
    text = json.dumps([VERSION, own, seed, steps], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _read_row(file: Path, name: str) -> Row:
    try:
        row = read_json(file)
        if not isinstance(row, dict) or row.get("name") != name:
            raise ValueError(f"expected an object with the name {name!r}")
        for key, _, _ in COLUMNS:
            if key in row and (isinstance(row[key], bool) or not isinstance(row[key], int | float)):
                raise ValueError(f"{key}: expected a number")
        if missing := {"psnr", "codebook_usage", "bits_per_token"} - row.keys():
            raise ValueError(f"{min(missing)} is missing")
    except (OSError, ValueError) as error:
        raise ContestantError(
            f"{file}: not a result of vq.compare: {printable(str(error))}; remove it, and it is computed again"
        ) from error
    return row


def contestant_tree(tree: Tree, name: str) -> dict[str, Any]:
    """The page with one contestant's quantizer in its tokenizer, or with a whole tokenizer of its own."""
    if name in tree.get("tokenizers", {}):
        return dict(tree) | {"tokenizer": tree["tokenizers"][name]}
    tokenizer = {**assembly.section(tree, "tokenizer"), "quantizer": tree["contestants"][name]}
    return dict(tree) | {"tokenizer": tokenizer}


def run_config(tree: Tree, name: str, steps: int) -> dict[str, Any]:
    """The config of the run that trains a contestant: so many steps, and metrics that count its codes."""
    own = {key: value for key, value in contestant_tree(tree, name).items() if key not in CONTESTANTS}
    size = assembly.make_tokenizer(own).codebook_size
    metrics = [
        node | ({"codebook_size": size} if "codebook_size" in node else {})
        for node in own["evaluator"]["metrics"]
    ]
    own["evaluator"] = {**own["evaluator"], "metrics": metrics}
    own["trainer"] = {**own["trainer"], "max_steps": steps}
    return own


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """A contestant after its last step.

    Attributes:
        step: Holds the trained tokenizer.
        data: The training set.
        seconds: Of each step, without the time spent waiting for data.
        losses: The squared error of each of the last steps, or the total loss where there is none.
    """

    step: TrainStep
    data: ImageLoader
    seconds: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)


def train(config: Tree, seed: int, *, device: str = "cpu") -> Trained:
    """Trains a tokenizer exactly as `vq.train` trains it with the same config and seed."""
    tokenizer = assembly.make_tokenizer(config, seed=seed).to(device).train()
    train_step = assembly.make_step(config, tokenizer, seed=seed)
    trained = Trained(step=train_step, data=assembly.make_loader(config, "train_data"))
    assembly.check_data(tokenizer, None, trained.data, "train_data")
    steps = config["trainer"]["max_steps"]
    for result in StepRunner(train_step=train_step, data=trained.data, seed=seed).run(stop=steps):
        trained.seconds.append(time.perf_counter() - result.started - result.data_seconds)
        if result.step > steps - NUM_LAST_STEPS:
            trained.losses.append(float(result.scalars.get("loss/mse", result.scalars["loss/total"])))
    return trained


def train_contestant(
    tree: Tree, name: str, seed: int, steps: int, *, device: str = "cpu", picture: Path | None = None
) -> Row:
    """Trains one contestant and scores it on the validation set; `picture` is where its grid is written."""
    config = run_config(tree, name, steps)
    trained = train(config, seed, device=device)
    tokenizer: Any = trained.step.model
    data = assembly.make_loader(config, "val_data")
    with averaged_weights(trained.step):
        scores, grid = Validation(evaluator=assembly.make_evaluator(config), data=data).run(tokenizer)
        train_mse = statistics.mean(_train_mse(tokenizer, trained.data, seed))
    if picture is not None:
        save_png(grid, picture)
    return {
        "name": name,
        "seed": seed,
        "steps": steps,
        **scores,
        **_sizes(tokenizer, data.image_size),
        "train_eval_mse": scores["mse_unit"] / train_mse,
        "images_per_second": trained.data.batch_size / statistics.median(trained.seconds),
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "last_loss": statistics.mean(trained.losses),
    }


def _sizes(tokenizer: Tokenizer, image_size: tuple[int, int]) -> Row:
    """How many codes there are, and how many bits a token and an image take."""
    quantizer = tokenizer.quantizer
    # Indices per position of the grid, also where the whole grid shares one sequence of them.
    stack = math.prod(quantizer.index_shape) / math.prod(quantizer.grid)
    num_indices = math.prod(tokenizer.indices_shape(*image_size))
    return {
        "codebook_size": tokenizer.codebook_size,
        "bits_per_token": math.log2(tokenizer.codebook_size) * stack,
        "tokens_per_image": num_indices / stack,
        "bits_per_image": math.log2(tokenizer.codebook_size) * num_indices,
    }


@torch.no_grad()
def _train_mse(tokenizer: Tokenizer, loader: ImageLoader, seed: int, batches: int = 4) -> list[float]:
    """The squared error in *training* mode (soft or noisy codes), in [0, 1] pixels; the tokenizer learns nothing."""
    kept = {name: tensor.clone() for name, tensor in tokenizer.state_dict().items()}
    device = tokenizer.device
    tokenizer.train()
    errors = []
    for _, batch in zip(range(batches), loader.train_batches(seed=seed), strict=False):
        image = to_signed_unit(batch["image"].to(device))
        error = (tokenizer(image).reconstruction.clamp(-1, 1) - image).square().mean() / 4
        errors.append(float(error))
    tokenizer.load_state_dict(kept)
    return errors
