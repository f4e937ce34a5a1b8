"""Pictures from a generator: planned, sampled on all ranks, written one by one, and never twice."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vq import distributed
from vq.data import read_image
from vq.engine.evaluation.sampling import generate_images
from vq.engine.jobs.sample_folder import SampleFolderError, claim, finish, note_hashes, read_hashes
from vq.files import sha256_of
from vq.generators import Generator
from vq.ops.images import grid, save_png
from vq.ops.keyed import stable_hash
from vq.tokenizers.fingerprint import fingerprint

MOST_IN_A_GRID = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """One picture.

    Attributes:
        label: Its class.
        number: Which of its class, from 0.
    """

    label: int
    number: int

    @property
    def file(self) -> str:
        """Its file name."""
        return f"class{self.label:04d}_{self.number:05d}.png"


def plan(classes: Sequence[int], *, num: int | None, num_per_class: int | None) -> list[Wanted]:
    """The pictures to make: `num` in all, going round the classes, or `num_per_class` of each.

    A class that is given twice is visited twice a round; each visit makes another picture.
    """
    if num_per_class is None:
        num_per_class = -(-(num or len(classes)) // len(classes))
    counts: Counter[int] = Counter()
    wanted = []
    for label in [c for _ in range(num_per_class) for c in classes]:
        wanted.append(Wanted(label=label, number=counts[label]))
        counts[label] += 1
    return wanted if num is None else wanted[:num]


def write_images(
    generator: Generator,
    tokenizer: nn.Module,
    wanted: Sequence[Wanted],
    folder: Path,
    *,
    seed: int,
    sampling: Mapping[str, Any],
    batch_size: int,
    settings: Mapping[str, Any],
    on_progress: Callable[[int], None] = lambda n: None,
) -> Path:
    """Writes the pictures that are not there yet, `samples.json`, and a grid of the first hundred beside the folder.

    A picture is a function of the seed, its class and its number: neither ranks nor batches nor a run that
    was killed and started again change it. A picture counts as made if its file has the SHA-256 that was noted when
    it was written. At the end the folder holds no other pictures: those that an earlier run noted are removed.

    Args:
        generator: In eval mode.
        tokenizer: Decodes its indices.
        wanted: What to make, each once; the ranks share it.
        folder: Made if it is missing.
        seed: Of all pictures.
        sampling: Arguments of `Generator.generate`.
        batch_size: Pictures at a time and rank.
        settings: What the pictures depend on besides; a folder made with others is refused.
        on_progress: Gets the number of pictures that this rank has just done.

    Returns:
        The grid's file, `FOLDER_grid.png`: whoever reads the folder, such as an FID, finds samples alone.

    Raises:
        SampleFolderError: On every rank, if the folder holds pictures of other settings or of another origin.
    """
    folder = folder.resolve()
    if not folder.name:
        raise SampleFolderError(f"{folder}: expected a folder with a name, which the grid beside it gets too")
    picture = folder.with_name(f"{folder.name}_grid.png")
    device = next(generator.parameters()).device
    record = {
        "seed": seed,
        **settings,
        "tokenizer_sha256": fingerprint(tokenizer),
        "autocast": torch.is_autocast_enabled(device.type),
        "sampling": {k: repr(v) for k, v in sampling.items()},
    }
    claim(folder, picture, record, [w.file for w in wanted])
    mine = wanted[distributed.rank() :: distributed.world_size()]
    noted = read_hashes(folder)
    missing = [w for w in mine if not _is_written(folder / w.file, noted)]
    distributed.barrier()
    on_progress(len(mine) - len(missing))
    for start in range(0, len(missing), batch_size):
        some = missing[start : start + batch_size]
        label = torch.tensor([w.label for w in some])
        seeds = torch.tensor([stable_hash(seed, "sample", w.label, w.number) % 2**62 for w in some])
        made = generate_images(generator, tokenizer, label, seeds, sampling=sampling)
        for w, image in zip(some, made, strict=True):
            save_png(image, folder / w.file)
        note_hashes(folder, {w.file: sha256_of(folder / w.file) for w in some})
        on_progress(len(some))
    distributed.barrier()
    if distributed.rank() == 0:
        shown = _shown(wanted)
        images = torch.stack([read_image(folder / w.file, w.file) for w in shown])
        save_png(grid(images, columns=_columns(shown)), picture)
        noted = read_hashes(folder)
        samples = [
            {"file": w.file, "class": w.label, "number": w.number, "sha256": noted[w.file]} for w in wanted
        ]
        finish(folder, {**record, "samples": samples})
    distributed.barrier()
    return picture


def _is_written(file: Path, noted: Mapping[str, str]) -> bool:
    return file.name in noted and file.is_file() and sha256_of(file) == noted[file.name]


def _shown(wanted: Sequence[Wanted]) -> list[Wanted]:
    """At most a hundred, equally many of each class where there are, class by class."""
    each = max(1, MOST_IN_A_GRID // len({w.label for w in wanted}))
    first = [w for w in wanted if w.number < each]
    return sorted(first, key=lambda w: (w.label, w.number))[:MOST_IN_A_GRID]


def _columns(shown: Sequence[Wanted]) -> int:
    """A row for each class, if they have equally many; else about a square."""
    counts = {w.label: sum(v.label == w.label for v in shown) for w in shown}
    equal = len(set(counts.values())) == 1 and len(counts) > 1
    return next(iter(counts.values())) if equal else max(1, round(len(shown) ** 0.5))
