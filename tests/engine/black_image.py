"""A training on a folder of pictures of which one is black, with a loss that is infinite for it."""

import shutil
from pathlib import Path
from typing import Any

import torch
from commands import TINY
from PIL import Image
from torch import Tensor

from vq import config
from vq.engine import Trainer, assembly
from vq.engine.loop.launch import Machine
from vq.losses import L1Loss
from vq.ops.keyed import generator

NUM_IMAGES, BATCH_SIZE, SEED = 24, 4, 2
BLACK = "picture_07.png"


def write_pictures(folder: Path) -> None:
    """24 pictures of 16 x 16 noise, one of which is black."""
    folder.mkdir()
    for i in range(NUM_IMAGES):
        pixels = torch.randint(64, 256, (16, 16, 3), generator=generator("picture", i), dtype=torch.uint8)
        Image.fromarray(pixels.numpy()).save(folder / f"picture_{i:02}.png")
    Image.new("RGB", (16, 16)).save(folder / BLACK)


def tree_of(folder: Path, **overrides: Any) -> dict[str, Any]:
    """The tiny page over these pictures; Adam for 10 steps of 4, saved every 2 steps."""
    changes = {"." + key.replace("__", "."): value for key, value in overrides.items()}
    dataset = {"type": "vq.data.ImageFolder", "root": str(folder)}
    options = {"max_steps": 10, "batch_size": BATCH_SIZE}
    return config.load(TINY, options=options, overrides={".train_data.dataset": dataset, **changes}).to_dict()


def divided_by_brightness(loss: Any, inputs: tuple[Tensor, Tensor], value: Tensor) -> Tensor:
    """The mean over the images of their L1 over their brightness, which is 0 for a black one."""
    reconstruction, image = inputs
    error = (reconstruction - image).abs().mean(dim=(1, 2, 3))
    return (error / ((image + 1) / 2).mean(dim=(1, 2, 3))).mean()


class RelativeL1(L1Loss):
    """L1 over the brightness."""

    def forward(self, compared: Tensor, image: Tensor) -> Tensor:
        return divided_by_brightness(self, (compared, image), image)


def page_of(folder: Path) -> str:
    """The tiny page over these pictures, with this loss, which goes back."""
    return (
        TINY.read_text()
        .replace("from vq.losses import L1Loss", "from black_image import RelativeL1")
        .replace("type=L1Loss", "type=RelativeL1")
        .replace("from vq.data import ", "from vq.data import ImageFolder, ")
        .replace(
            "type=ProceduralDataset, num_images=64, image_size=16", f"type=ImageFolder, root={str(folder)!r}"
        )
        .replace("log_every=2", 'log_every=2, on_nonfinite="rewind"')
    )


def trainer_of(tree: dict[str, Any], run: Path, *, rank: int = 0, size: int = 1) -> Trainer:
    """A trainer in float64 whose loss `l1` is divided by the brightness."""
    tokenizer: Any = assembly.make_tokenizer(tree, seed=SEED).double()
    # The images of a validation are in float32.
    tokenizer.encoder.register_forward_pre_hook(lambda encoder, images: (images[0].double(),))
    step = assembly.make_step(tree, tokenizer)
    step.losses["l1"].register_forward_hook(divided_by_brightness)  # type: ignore[attr-defined]
    machine = Machine(device="cpu", rank=rank, world_size=size, threads=1, autocast=False)
    return assembly.make_trainer(tree, run, step, machine, seed=SEED)


def failing_step(tree: dict[str, Any], first: int = 0) -> tuple[int, list[str]]:
    """The first batch from `first` on that has the black picture, and the keys of its samples."""
    batches = assembly.make_loader(tree, "train_data").train_batches(seed=SEED, start_step=first)
    return next((n, batch["key"]) for n, batch in enumerate(batches, first) if BLACK in batch["key"])


def without_checkpoints_after(run: Path, step: int) -> None:
    """What a run that was killed after this step has left."""
    for folder in (run / "checkpoints").iterdir():
        if int(folder.name.removeprefix("iter_")) > step:
            shutil.rmtree(folder)
