"""What the scoring of a checkpoint leaves: a table on the console, and one picture per image if asked for."""

import logging
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from jaxtyping import Int, UInt8
from rich.console import Console
from rich.table import Table
from rich.text import Text
from torch import Tensor

from vq.data import Batch
from vq.engine.evaluation.base import Evaluation
from vq.engine.evaluation.pictures import index_picture
from vq.ops.images import preview, save_png
from vq.text import file_name, printable

logger = logging.getLogger(__name__)
VISUALS = ("image", "reconstruction", "indices")
"""The kinds of pictures that `--visual` can select."""


def visual_kinds(pattern: str, *, has_reconstructions: bool = True) -> list[str]:
    """The kinds of pictures that a regular expression matches; an empty one matches none.

    Args:
        pattern: The regular expression.
        has_reconstructions: Whether the model reconstructs images.
    """
    kinds = [kind for kind in VISUALS if has_reconstructions or kind != "reconstruction"]
    return [kind for kind in kinds if pattern and re.fullmatch(pattern, kind)]


class VisualWriter:
    """Writes one PNG per image and kind of picture.

    Args:
        directory: Made if it is missing.
        kinds: Some of `VISUALS`.
        codebook_size: Decides the colours of an index map.
        rgb: The channels of images to show as red, green and blue; by default as in `vq.ops.images.preview`.
    """

    def __init__(
        self, directory: Path, kinds: list[str], codebook_size: int, rgb: Sequence[int] | None = None
    ) -> None:
        self.directory, self.kinds, self.codebook_size, self.rgb = directory, kinds, codebook_size, rgb

    def __call__(
        self,
        batch: Batch,
        reconstruction: UInt8[Tensor, "b channels h w"] | None,
        indices: Int[Tensor, "b *axes"],
    ) -> None:
        """Writes the pictures of a batch; `reconstruction` is None if it is not one of the kinds."""
        if not self.kinds:
            return
        for i, key in enumerate(batch["key"]):
            image, name = batch["image"][i], file_name(key)
            for kind in self.kinds:
                picture = preview(image, self.rgb)
                if kind == "indices":
                    _, height, width = image.shape
                    picture = index_picture(indices[i].cpu(), self.codebook_size, height=height, width=width)
                elif kind == "reconstruction" and reconstruction is not None:
                    picture = preview(reconstruction[i].cpu(), self.rgb)
                save_png(picture, self.directory / f"{kind}_{name}.png")


def show(evaluation: Evaluation, *, title: str) -> None:
    """Prints the scores as a table."""
    console = Console(file=sys.stdout, width=None if sys.stdout.isatty() else 100)
    console.print(
        f"{printable(title)}: {evaluation.num_images} images", highlight=False, soft_wrap=True, markup=False
    )
    table = Table()
    table.add_column("metric")
    table.add_column("value", justify="right")
    for name, value in evaluation.scores.items():
        table.add_row(Text(printable(name)), f"{value:.4f}")
    console.print(table)
    for name, stamp in evaluation.stamps.items():
        words = ", ".join(f"{k} {_short(v)}" for k, v in stamp.items() if v is not None)
        console.print(printable(f"{name}: {words}"), highlight=False, soft_wrap=True, markup=False)
    warn_of_undecodable(evaluation.undecodable)


def warn_of_undecodable(names: list[str]) -> None:
    """Logs the images that were left out of a pass, if there were any."""
    if names:
        logger.warning(
            "%d images could not be decoded and are not counted: %s",
            len(names),
            ", ".join(map(printable, names[:10])),
        )


def _short(value: str | int | None) -> str:
    """A stamp's value as a table shows it: a hash by its first digits."""
    return re.sub(r"\b([0-9a-f]{12})[0-9a-f]{52}\b", r"\1", str(value))
