"""The one place where configs and objects meet: sections become the parts of a run."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from vq import distributed
from vq.data import Batch, ImageLoader, UndecodableSetError
from vq.engine.alternating import codebook_parameters
from vq.engine.callbacks import Callback, ConsoleProgress, Guarded, ImageGrid, MetricsFile, TensorBoard, WandB
from vq.engine.checkpointer import Checkpointer
from vq.engine.evaluator import Evaluator
from vq.engine.launch import Machine
from vq.engine.steps import TrainStep
from vq.engine.trainer import Trainer
from vq.ops.keyed import stable_hash
from vq.registry import ConfigError, build
from vq.tokenizers import ImageTokenizer

Tree = Mapping[str, Any]
logger = logging.getLogger(__name__)


def section(config: Tree, name: str) -> Tree:
    """A section of the config.

    Raises:
        ConfigError: If the config has none of this name.
    """
    if name not in config:
        raise ConfigError(f"the config has no section {name!r}; add {name} = dict(type=..., ...)")
    node: Tree = config[name]
    return node


def make_tokenizer(config: Tree, *, seed: int = 0) -> ImageTokenizer:
    """The config's tokenizer; its first weights are a function of the seed."""
    torch.manual_seed(stable_hash(seed, "weights"))
    tokenizer: ImageTokenizer = build(section(config, "tokenizer"), path="tokenizer")
    return tokenizer


def make_loader(config: Tree, name: str) -> ImageLoader:
    """The loader of section `name` (`train_data` or `val_data`), checked: there, decodable, of one size."""
    loader: ImageLoader = build(section(config, name), path=name)
    try:
        loader.check()
    except (ValueError, UndecodableSetError) as error:
        raise ConfigError(f"{name}: {error}") from error
    return loader


def check_image_size(tokenizer: torch.nn.Module, loader: ImageLoader, name: str) -> None:
    """Refuses images whose sides the tokenizer's stride does not divide, before any training."""
    height, width = loader.image_size
    factor = int(tokenizer.downsample_factor)  # type: ignore[arg-type]
    if height % factor or width % factor:
        raise ConfigError(
            f"{name}: its images are {height} x {width}, but the tokenizer scales down by {factor}, which does not "
            f"divide them; crop to {max(1, height // factor) * factor} x {max(1, width // factor) * factor}"
        )


def make_evaluator(config: Tree) -> Evaluator:
    """The config's evaluator."""
    evaluator: Evaluator = build(section(config, "evaluator"), path="evaluator")
    return evaluator


def make_step(config: Tree, tokenizer: ImageTokenizer, *, autocast: bool = False) -> TrainStep:
    """The training step: its optimizers get their parameters, its schedule the length of the run."""
    node, runtime = section(config, "train_step"), {"tokenizer": tokenizer, "autocast": autocast}
    if "step" not in node:
        return _build_step(config, node, "train_step", list(tokenizer.parameters()), **runtime)
    # A step around another one has the codes, and the inner one everything else.
    codes = codebook_parameters(tokenizer)
    others = [p for p in tokenizer.parameters() if all(p is not code for code in codes)]
    inner = _build_step(config, node["step"], "train_step.step", others, **runtime)
    return _build_step(config, node, "train_step", codes, step=inner)


def _build_step(
    config: Tree, node: Tree, path: str, parameters: list[torch.nn.Parameter], **runtime: Any
) -> TrainStep:
    """A step whose `optimizer` moves `parameters` by its `schedule`."""
    runtime["optimizer"] = build(node["optimizer"], path=f"{path}.optimizer", params=parameters)
    if "step" not in node:
        schedule = node.get("schedule") or {"type": "vq.engine.schedules.Constant"}
        total_steps = {"total_steps": section(config, "trainer").get("max_steps")}
        length: dict[str, Any] = {} if schedule["type"].endswith("Constant") else total_steps
        runtime["schedule"] = build(schedule, path=f"{path}.schedule", **length)
    step: TrainStep = build(node, path=path, **runtime)
    return step


def make_checkpointer(config: Tree, run: Path) -> Checkpointer:
    """The checkpointer of a run folder."""
    node = section(config, "checkpointer")
    checkpointer: Checkpointer = build(
        node, path="checkpointer", directory=run / "checkpoints", config=dict(config)
    )
    return checkpointer


def make_callback(config: Tree, run: Path, *, wandb: bool) -> Callback:
    """What looks at a run: on rank 0 the console and the files, elsewhere nothing."""
    if distributed.rank() > 0:
        return Callback()
    callbacks = [
        ConsoleProgress(),
        MetricsFile(directory=run),
        TensorBoard(directory=run),
        ImageGrid(directory=run),
    ]
    if wandb:
        callbacks.append(WandB(directory=run, name=run.name, config=config))
    return Guarded(callbacks)


def make_trainer(
    config: Tree, run: Path, train_step: TrainStep, machine: Machine, *, seed: int, wandb: bool = False
) -> Trainer:
    """Everything of a run, ready to `fit`; wrong sizes and missing data are refused here."""
    train_data, val_data = make_loader(config, "train_data"), make_loader(config, "val_data")
    for name, loader in (("train_data", train_data), ("val_data", val_data)):
        check_image_size(train_step.model, loader, name)
    accumulate = train_step.accumulate
    try:  # the global batch must divide over ranks and micro-batches
        next(iter(train_data.train_batches(seed=seed, micro_batches=accumulate)))
    except (ValueError, UndecodableSetError) as error:
        raise ConfigError(f"train_data: {error}") from error
    trainer: Trainer = build(
        section(config, "trainer"),
        path="trainer",
        train_step=train_step,
        batches=partial(grouped_batches, train_data, seed, accumulate),
        checkpointer=make_checkpointer(config, run),
        evaluator=make_evaluator(config),
        val_data=val_data,
        callback=make_callback(config, run, wandb=wandb),
        seed=seed,
    )
    logger.info("%s", machine)
    return trainer


def grouped_batches(
    loader: ImageLoader, seed: int, accumulate: int, start_step: int
) -> Iterator[Sequence[Batch]]:
    """The micro-batches of each step from `start_step` on; bad images are named once."""
    named: set[str] = set()
    batches = loader.train_batches(seed=seed, start_step=start_step, micro_batches=accumulate)
    while True:
        group = list(islice(batches, accumulate))
        for name in {name for batch in group for name in batch["undecodable"]} - named:
            named.add(name)
            logger.warning("the next image stands in for %s; %d broken so far", name, len(named))
        yield group


def describe(config: Tree, *, image_size: tuple[int, int], batch: int, autocast: bool) -> list[str]:
    """The parts' parameters and an estimate of the memory that training takes, from the meta device alone.

    Args:
        config: The resolved config.
        image_size: Height and width of a training image.
        batch: Images a rank and micro-batch.
        autocast: Whether activations are kept in bfloat16.
    """
    with torch.device("meta"):
        tokenizer = make_tokenizer(config)
        image = torch.empty(batch, 3, *image_size)
        activations = 0

        def count(module: torch.nn.Module, inputs: Any, output: Any) -> None:
            nonlocal activations
            if not list(module.children()) and isinstance(output, torch.Tensor):
                activations += output.numel() * (2 if autocast else 4)

        hooks = [
            m.register_forward_hook(count)
            for m in (*tokenizer.encoder.modules(), *tokenizer.decoder.modules())
        ]
        latent = tokenizer.encoder(image)
        factor = tokenizer.downsample_factor
        grid = (image_size[0] // factor, image_size[1] // factor)
        tokenizer.decoder(torch.empty(batch, tokenizer.post_quant.out_channels, *grid))
        for hook in hooks:
            hook.remove()
    parts = {
        name: sum(p.numel() for p in module.parameters())
        for name, module in (
            ("encoder", tokenizer.encoder),
            ("quantizer", tokenizer.quantizer),
            ("decoder", tokenizer.decoder),
        )
    }
    total = sum(p.numel() for p in tokenizer.parameters())
    buffers = sum(b.numel() * b.element_size() for b in tokenizer.buffers())
    copies = 4 + (
        config["train_step"].get("weight_ema") is not None
    )  # weights, gradients, two moments, average
    state = copies * 4 * total + buffers
    return [
        f"parameters: {total:,} ({', '.join(f'{name} {n:,}' for name, n in parts.items())})",
        f"an image of {image_size[0]} x {image_size[1]} becomes {grid[0]} x {grid[1]} indices "
        f"out of {tokenizer.codebook_size:,}; features {tuple(latent.shape)}",
        f"memory a rank, estimated: {(state + activations) / 2**20:,.0f} MiB "
        f"(weights, gradients, optimizer, average {state / 2**20:,.0f}; activations of {batch} images "
        f"{activations / 2**20:,.0f}; losses and workspace come on top)",
    ]
