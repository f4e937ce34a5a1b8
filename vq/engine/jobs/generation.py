"""Images from a generator: planned, drawn on all ranks, written one by one, and never twice."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import UInt8
from torch import Tensor

from vq import distributed
from vq.data import read_image
from vq.engine.evaluation.sampling import generate_images
from vq.engine.jobs.sample_folder import SampleFolderError, claim, finish, note_hashes, read_hashes
from vq.files import sha256_of
from vq.generators import Generator
from vq.ops.images import PNG_CHANNELS, grid, save_pixels, save_png
from vq.ops.keyed import stable_hash
from vq.tokenizers import Tokenizer
from vq.tokenizers.fingerprint import fingerprint

MOST_IN_A_GRID = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """One image to generate.

    Attributes:
        label: Its class.
        number: Its number within the class, from 0.
    """

    label: int
    number: int

    @property
    def file(self) -> str:
        """Its file name."""
        return f"class{self.label:04d}_{self.number:05d}.png"


def plan(classes: Sequence[int], *, num: int | None, num_per_class: int | None) -> list[Wanted]:
    """The images to generate: `num` in total, cycling through the classes, or `num_per_class` of each.

    A class that is given twice is visited twice per cycle; each visit generates another image.
    """
    if num_per_class is None:
        num_per_class = -(-(num or len(classes)) // len(classes))
    counts: Counter[int] = Counter()
    wanted = []
    for label in [c for _ in range(num_per_class) for c in classes]:
        wanted.append(Wanted(label=label, number=counts[label]))
        counts[label] += 1
    return wanted if num is None else wanted[:num]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSource:
    """Draws images from a generator; an image is a function of the seed, its class and its number.

    Attributes:
        generator: In eval mode.
        tokenizer: Decodes its indices.
        sampling: Arguments of `Generator.generate`.
        seed: Base seed.
        rgb: The channels that a PNG shows as red, green and blue if it cannot hold all; by default the first three.
    """

    generator: Generator
    tokenizer: Tokenizer
    sampling: Mapping[str, Any]
    seed: int
    rgb: Sequence[int] | None = None

    def draw(self, wanted: Sequence[Wanted]) -> UInt8[Tensor, "b channels h w"]:
        """The images, in order."""
        label = torch.tensor([w.label for w in wanted])
        seeds = torch.tensor([stable_hash(self.seed, "sample", w.label, w.number) % 2**62 for w in wanted])
        return generate_images(self.generator, self.tokenizer, label, seeds, sampling=self.sampling)

    def files(self, wanted: Wanted) -> list[str]:
        """The names of an image's files: its PNG, and an array of its channels if a PNG cannot hold them."""
        if self.tokenizer.image_channels in PNG_CHANNELS:
            return [wanted.file]
        return [wanted.file, str(Path(wanted.file).with_suffix(".npy"))]

    def to(self, device: str) -> None:
        """Moves the networks to a device."""
        self.generator.to(device)
        self.tokenizer.to(device)

    def settings(self) -> dict[str, Any]:
        """What the images depend on besides the generator's weights; ready for JSON."""
        device = next(self.generator.parameters()).device
        return {
            "seed": self.seed,
            "tokenizer_sha256": fingerprint(self.tokenizer),
            "autocast": torch.is_autocast_enabled(device.type),
            "sampling": {name: repr(value) for name, value in self.sampling.items()},
            **({} if self.rgb is None else {"rgb": list(self.rgb)}),
        }


DrawImages = Callable[[ImageSource, Sequence[Sequence[Wanted]], Path], Iterator[dict[str, str]]]
"""Draws and writes batches of images in a folder; yields the SHA-256 of each file of a batch by its name, in order."""


def draw_images(
    source: ImageSource, batches: Sequence[Sequence[Wanted]], folder: Path
) -> Iterator[dict[str, str]]:
    """Draws and writes the images in this process."""
    for batch in batches:
        files = [
            file
            for w, image in zip(batch, source.draw(batch), strict=True)
            for file in save_pixels(image, folder / w.file, source.rgb)
        ]
        yield {file.name: sha256_of(file) for file in files}


def write_images(
    source: ImageSource,
    wanted: Sequence[Wanted],
    folder: Path,
    *,
    batch_size: int,
    settings: Mapping[str, Any],
    on_progress: Callable[[int], None] = lambda n: None,
    draw: DrawImages = draw_images,
) -> Path:
    """Writes the images that are missing, `samples.json`, and a grid of the first hundred beside the folder.

    Grey, RGB and RGBA images are PNG files. Of images of other channels, the PNG is a preview, and an `.npy` file of
    the same name holds the pixels, (h, w, channels).

    Neither the number of ranks nor the batches nor a run that was killed and started again change an image. An image
    counts as written if its file has the SHA-256 that was noted when it was written. At the end the folder holds no
    other images: those that an earlier run noted are removed.

    Args:
        source: Draws the images.
        wanted: Which images, each once; the ranks share the work.
        folder: Made if it is missing.
        batch_size: Images drawn at a time, per rank.
        settings: What the images depend on besides `source.settings()`; a folder made with others is refused.
        on_progress: Receives the number of images that this rank has just finished.
        draw: Draws the images that are missing; by default this process does.

    Returns:
        The file of the grid, `FOLDER_grid.png`. It is not in the folder, so that a reader of the folder, such as an
        FID, finds samples only.

    Raises:
        SampleFolderError: On every rank, if the folder holds images of other settings or of another origin.
    """
    folder = folder.resolve()
    if not folder.name:
        raise SampleFolderError(f"{folder}: expected a folder with a name, which the grid beside it gets too")
    picture = folder.with_name(f"{folder.name}_grid.png")
    record = {**settings, **source.settings()}
    claim(folder, picture, record, [name for w in wanted for name in source.files(w)])
    batches = _missing(source, wanted, folder, batch_size, on_progress)
    for batch, hashes in zip(batches, draw(source, batches, folder), strict=True):
        note_hashes(folder, hashes)
        on_progress(len(batch))
    distributed.barrier()
    if distributed.rank() == 0:
        _complete(source, wanted, folder, picture, record)
    distributed.barrier()
    return picture


def _missing(
    source: ImageSource,
    wanted: Sequence[Wanted],
    folder: Path,
    batch_size: int,
    on_progress: Callable[[int], None],
) -> list[list[Wanted]]:
    """Batches of this rank's images that are not written yet; `on_progress` receives the number of the others."""
    mine = wanted[distributed.rank() :: distributed.world_size()]
    noted = read_hashes(folder)
    missing = [w for w in mine if not all(_is_written(folder / name, noted) for name in source.files(w))]
    distributed.barrier()  # every rank has read the notes before any rank adds to them
    on_progress(len(mine) - len(missing))
    return [missing[start : start + batch_size] for start in range(0, len(missing), batch_size)]


def _complete(
    source: ImageSource, wanted: Sequence[Wanted], folder: Path, picture: Path, record: Mapping[str, Any]
) -> None:
    """Writes the grid and `samples.json`."""
    shown = _shown(wanted)
    images = torch.stack([read_image(folder / w.file, w.file) for w in shown])
    save_png(grid(images, columns=_columns(shown)), picture)
    noted = read_hashes(folder)
    samples = [_sample(w, source.files(w), noted) for w in wanted]
    finish(folder, {**record, "samples": samples})


def _sample(wanted: Wanted, files: Sequence[str], noted: Mapping[str, str]) -> dict[str, Any]:
    """The entry of an image in `samples.json`."""
    picture, *arrays = [{"file": name, "sha256": noted[name]} for name in files]
    numbers = {"class": wanted.label, "number": wanted.number}
    return {**picture, **numbers, **({"array": arrays[0]} if arrays else {})}


def _is_written(file: Path, noted: Mapping[str, str]) -> bool:
    return file.name in noted and file.is_file() and sha256_of(file) == noted[file.name]


def _shown(wanted: Sequence[Wanted]) -> list[Wanted]:
    """The images in the grid: at most a hundred, equally many of each class if possible, class by class."""
    each = max(1, MOST_IN_A_GRID // len({w.label for w in wanted}))
    first = [w for w in wanted if w.number < each]
    return sorted(first, key=lambda w: (w.label, w.number))[:MOST_IN_A_GRID]


def _columns(shown: Sequence[Wanted]) -> int:
    """One row per class if all have equally many images; otherwise the grid is about square."""
    counts = {w.label: sum(v.label == w.label for v in shown) for w in shown}
    equal = len(set(counts.values())) == 1 and len(counts) > 1
    return next(iter(counts.values())) if equal else max(1, round(len(shown) ** 0.5))
