"""Writes a word beside each row of a grid of images, as in the pictures of the README.

    python docs/reproducing/labelled_grid.py GRID.png original "64 indices" original "64 indices" --out PICTURE.png

The grids: `val/iter_N/reconstructions.png` of the demo's run, and what `vq generate --num-per-class 10` writes.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

FONT_SIZE = 16
GAP = 10


def labelled(grid: Image.Image, words: Sequence[str]) -> Image.Image:
    """The grid with one word on the left of each of its rows, black on white."""
    font = ImageFont.load_default(FONT_SIZE)
    margin = round(max(font.getlength(word) for word in words)) + 2 * GAP
    picture = Image.new("RGB", (margin + grid.width, grid.height), "white")
    picture.paste(grid, (margin, 0))
    draw = ImageDraw.Draw(picture)
    for row, word in enumerate(words):
        middle = (row + 0.5) * grid.height / len(words)
        draw.text((margin - GAP, middle), word, fill="black", font=font, anchor="rm")
    return picture


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("grid", type=Path, help="a picture whose rows have equal heights")
    parser.add_argument("words", nargs="+", metavar="WORD", help="one for each row, from the top")
    parser.add_argument("--scale", type=int, default=1, help="enlarge the grid so many times first")
    parser.add_argument("--out", type=Path, required=True, help="the PNG file to write")
    args = parser.parse_args(argv)
    with Image.open(args.grid) as image:
        grid = image.convert("RGB")
    grid = grid.resize((args.scale * grid.width, args.scale * grid.height), Image.Resampling.NEAREST)
    labelled(grid, args.words).save(args.out, optimize=True)


if __name__ == "__main__":
    main()
