"""Draws a codebook atlas: for each code, patches that are encoded as it, and how often it is used.

    python tools/visualize_patches.py fsq/240_digits work_dirs/fsq/240_digits/tokens/val

TOKENS is a folder that `vq tokenize` wrote. The images are those of the page's val_data, or of its train_data if the
store was made from them. It writes index.html and the PNGs that this page shows. For each code, a fixed number of
patches is selected by a hash of code, image and position: the same ones every time, in memory that does not grow with
the number of pixels.
"""

import argparse
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from vq import cli
from vq.data import ImageLoader, UndecodableSetError
from vq.data.stores.token_store import TokenStore, TokenStoreError
from vq.engine import assembly
from vq.engine.evaluation.progress import PassProgress
from vq.engine.jobs.views import VIEWS, cut_views, views_of
from vq.engine.loop.launch import launched, open_log
from vq.engine.reporting.rendering import render
from vq.files import write_atomically
from vq.ops.images import as_rgb
from vq.ops.keyed import stable_hash
from vq.tokenizers.checkpoint import self_contained

logger = logging.getLogger("vq.visualize_patches")
Ints = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]
Pixels = npt.NDArray[np.uint8]

LARGEST_VOCABULARY = 2**24  # one count per code is held in memory
ROWS_A_SHEET = 64
ROWS_A_STEP = 64
DRAWN_SIDE = 40  # a patch is enlarged by an integer factor to about this many pixels
LINE = (90, 150, 220)  # between patches: a colour that few patches have, since many are black or white
_NOTHING = np.uint64(2**64 - 1)
TEMPLATE = Path(__file__).parent / "templates" / "atlas.html"


def arguments() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = cli.tool_parser(__doc__)
    parser.add_argument("config", metavar="CONFIG", help="the page whose images were tokenized")
    parser.add_argument("tokens", type=Path, metavar="TOKENS", help="the folder that vq tokenize wrote")
    cli.add_config_changes(parser)
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="the folder to write to (default: TOKENS/patches)"
    )
    parser.add_argument(
        "--per-code", type=cli.positive, default=16, help="patches per code (default: %(default)s)"
    )
    parser.add_argument(
        "--codes",
        type=cli.positive,
        default=4096,
        help="number of codes to draw, the most used ones; shared by the levels of a stack (default: %(default)s)",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> Path:
    """Runs the command; returns the page that it wrote."""
    args = arguments().parse_args(argv)
    config = cli.load_config(args).to_dict()
    with launched(device="cpu"):
        open_log(None)
        try:
            source = open_source(config, args.tokens)
            atlas = Atlas.collect(source, per_code=args.per_code, num_codes=args.codes)
            page = write(atlas, args.out or args.tokens / "patches", title=f"{args.config}: {args.tokens}")
        except (TokenStoreError, UndecodableSetError, ValueError) as error:
            raise cli.UsageError(str(error)) from error
        for section in atlas.sections:
            logger.info("%s", section)
        logger.info("wrote %s", page)
    return page


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A token store and the images that it was made from.

    Attributes:
        store: The indices.
        loader: Reads the images as they were tokenized.
        items: For each image of the store, its number in the loader's data set.
        grid: Positions of an image, in rows and columns.
        stack: Indices per position.
    """

    store: TokenStore
    loader: ImageLoader
    items: Ints
    grid: tuple[int, int]
    stack: int

    @property
    def patch_size(self) -> tuple[int, int]:
        """Height and width of the patch of one position, in pixels."""
        height, width = self.loader.image_size
        return height // self.grid[0], width // self.grid[1]

    @property
    def axes(self) -> tuple[int, int, int, int]:
        """Images, views, positions, and indices per position."""
        return len(self.store), self.store.views, self.grid[0] * self.grid[1], self.stack

    def blocks(self, progress: PassProgress) -> Iterator[tuple[int, Ints]]:
        """Yields blocks of images: the number of the first one, and indices (image, view, position, stack)."""
        images, *rest = self.axes
        with progress:
            for start in range(0, images, ROWS_A_STEP):
                rows = range(start, min(start + ROWS_A_STEP, images))
                read = [self.store.read(row, view).numpy() for row in rows for view in range(rest[0])]
                yield start, np.stack(read).reshape(len(rows), *rest)
                progress.advance(len(rows))


def open_source(config: dict[str, Any], tokens: Path) -> Source:
    """Opens a store together with the images of its page.

    Raises:
        TokenStoreError: If the store is damaged, or was made from other images or by another kind of tokenizer.
    """
    store = TokenStore(tokens)
    store.verify()
    if len(store) == 0:
        raise TokenStoreError(f"{tokens}: expected at least one image, got none")
    if store.manifest["vocabulary_size"] > LARGEST_VOCABULARY:
        raise TokenStoreError(
            f"{tokens}: expected at most {LARGEST_VOCABULARY} codes, got {store.manifest['vocabulary_size']}; "
            f"the atlas counts each code in memory"
        )
    split = store.manifest["split"]
    if split == "train":  # as vq tokenize --train: the images of one section, the transforms of the other
        config["val_data"] = {**config["val_data"], "dataset": config["train_data"]["dataset"]}
    _check_section(store.manifest, config["val_data"], f"{tokens}: the images of {split}_data")
    loader = assembly.make_loader(config, "val_data")
    items = _match(store, loader, f"{tokens}: the images of {split}_data")
    size = loader.image_size
    with torch.device("meta"):
        tokenizer: Any = assembly.make_tokenizer({"tokenizer": self_contained(config["tokenizer"])})
    expected, axes = tuple(tokenizer.indices_shape(*size)), store.axes
    if expected != axes:
        raise TokenStoreError(
            f"{tokens}: expected indices of the shape {expected}, which the page's tokenizer makes of images of "
            f"{size[0]} x {size[1]} pixels, got {axes}; give the page that the store was made with"
        )
    factor = int(tokenizer.downsample_factor)
    # A sequence of latents with stacked indices has two axes too, but none of them is a position in the image.
    if axes[:2] != (size[0] // factor, size[1] // factor) or getattr(tokenizer, "num_latents", None):
        raise TokenStoreError(
            f"{tokens}: expected a grid of {size[0] // factor} x {size[1] // factor} positions, got indices of the "
            f"shape {axes}; the indices of a sequence correspond to no patch"
        )
    if (order := store.manifest.get("view_order", VIEWS[store.views])) != VIEWS[store.views]:
        raise TokenStoreError(
            f"{tokens}: expected the views {VIEWS[store.views]!r}, got {order!r} of an earlier version; tokenize again"
        )
    stack = int(np.prod(axes[2:], dtype=np.int64))
    return Source(
        store=store,
        loader=views_of(loader, store.views, size),
        items=items,
        grid=(axes[0], axes[1]),
        stack=stack,
    )


def _check_section(manifest: Mapping[str, Any], section: Mapping[str, Any], place: str) -> None:
    """Refuses images whose description differs from that in the store; the folder of the set may differ."""
    now = json.loads(json.dumps({"transforms": [], **section}, default=str))
    for name in ("dataset", "transforms"):
        ours, theirs = now[name], manifest[name]
        if name == "dataset":
            ours, theirs = ({k: v for k, v in node.items() if k != "root"} for node in (ours, theirs))
        if ours != theirs:
            raise TokenStoreError(
                f"{place}: the store was made with {name}={theirs}, the page has {ours}; give the page of the store, "
                f"or change this one with --override"
            )


def _match(store: TokenStore, loader: ImageLoader, place: str) -> Ints:
    """For each image of the store, its number in the set. The store has the same order, without broken images."""
    dataset, total = loader.dataset, store.manifest["num_source_images"]
    if len(dataset) != total:
        raise TokenStoreError(
            f"{place}: expected the {total} images that were tokenized, got {len(dataset)}; tokenize again"
        )
    items: list[int] = []
    for item in range(total):
        if len(items) < len(store) and dataset.key(item) == store.key(len(items)):
            items.append(item)
    if len(items) < len(store):
        raise TokenStoreError(
            f"{place}: expected an image with the key {store.key(len(items))!r} (number {len(items)} of the store), "
            f"got none; the set has changed, or is a different one: tokenize again"
        )
    return np.array(items, dtype=np.int64)


class Reservoir:
    """Keeps for each slot the few addresses with the smallest hashes, a sample that does not depend on the order.

    Args:
        num_slots: The number of samples.
        capacity: The number of addresses per sample.
    """

    def __init__(self, *, num_slots: int, capacity: int) -> None:
        self.hashes: Hashes = np.full((num_slots, capacity), _NOTHING, dtype=np.uint64)
        self.addresses: Ints = np.full((num_slots, capacity), -1, dtype=np.int64)

    def offer(self, slots: Ints, hashes: Hashes, addresses: Ints) -> None:
        """Merges candidates into the samples, each sorted by hash."""
        wanted = hashes < self.hashes[slots, -1]
        slots, hashes, addresses = slots[wanted], hashes[wanted], addresses[wanted]
        touched = np.unique(slots)
        if not len(touched):
            return
        capacity = self.hashes.shape[1]
        slots = np.concatenate([np.repeat(touched, capacity), slots])
        hashes = np.concatenate([self.hashes[touched].reshape(-1), hashes])
        addresses = np.concatenate([self.addresses[touched].reshape(-1), addresses])
        order = np.lexsort((hashes, slots))
        first = np.searchsorted(slots[order], touched)
        best = order[first[:, None] + np.arange(capacity)]
        self.hashes[touched], self.addresses[touched] = hashes[best], addresses[best]


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """One level of the stack: how often each code is used, and the patches that are drawn for it.

    Attributes:
        counts: The number of uses of every code.
        codes: The codes that are drawn, the most used first.
        patches: The patches of these codes, (code, patch, height, width, 3).
        num_patches: The number of patches of each of these codes.
    """

    counts: Ints
    codes: Ints
    patches: Pixels
    num_patches: Ints

    @property
    def num_used(self) -> int:
        """The number of codes that are used."""
        return int((self.counts > 0).sum())

    @property
    def perplexity(self) -> float:
        """The exponential of the entropy of the code frequencies, in [1, number of codes]."""
        share = self.counts[self.counts > 0] / self.counts.sum()
        return float(np.exp(-(share * np.log(share)).sum()))

    def __str__(self) -> str:
        size = len(self.counts)
        drawn = "" if len(self.codes) == self.num_used else f"; the {len(self.codes)} most used are drawn"
        return (
            f"{self.num_used} of {size} codes used ({self.num_used / size:.1%}), perplexity {self.perplexity:.1f}, "
            f"{self.counts.sum()} tokens{drawn}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Atlas:
    """One section per level of the stack, and the size of a patch in pixels."""

    sections: list[Section]
    patch_size: tuple[int, int]
    num_images: int
    views: int

    @classmethod
    def collect(cls, source: Source, *, per_code: int, num_codes: int) -> "Atlas":
        """Counts the codes, selects patches, then reads the images that have them.

        Args:
            source: The store and its images.
            per_code: The maximum number of patches per code.
            num_codes: The maximum number of codes that are drawn, over all sections.

        Raises:
            TokenStoreError: If an image can no longer be read.
        """
        counts = _count(source)
        codes = [_most_used(row, max(1, num_codes // source.stack)) for row in counts]
        sample = _choose(source, codes, per_code)
        patches = _cut(source, sample.addresses)
        sections, start = [], 0
        for row, chosen in zip(counts, codes, strict=True):
            part = slice(start, start + len(chosen))
            found = (sample.addresses[part] >= 0).sum(axis=1)
            sections.append(Section(counts=row, codes=chosen, patches=patches[part], num_patches=found))
            start = part.stop
        return cls(
            sections=sections,
            patch_size=source.patch_size,
            num_images=len(source.store),
            views=source.store.views,
        )


def _count(source: Source) -> Ints:
    """The number of uses of each code, (stack, code)."""
    size = int(source.store.manifest["vocabulary_size"])
    counts = np.zeros((source.stack, size), dtype=np.int64)
    for _, indices in source.blocks(PassProgress("count", len(source.store))):
        for q, row in enumerate(counts):
            np.add(row, np.bincount(indices[..., q].reshape(-1), minlength=size), out=row)
    return counts


def _most_used(counts: Ints, num: int) -> Ints:
    order = np.argsort(-counts, kind="stable")
    return order[: min(num, int((counts > 0).sum()))]


def _choose(source: Source, codes: Sequence[Ints], per_code: int) -> Reservoir:
    """The addresses of the patches to draw, as flat indices into `Source.axes`; a slot is a code of a section."""
    slot_of = np.full((source.stack, int(source.store.manifest["vocabulary_size"])), -1, dtype=np.int32)
    start = 0
    for q, chosen in enumerate(codes):
        slot_of[q, chosen] = np.arange(start, start + len(chosen))
        start += len(chosen)
    sample = Reservoir(num_slots=start, capacity=per_code)
    _, views, places, stack = source.axes
    per_image = views * places * stack
    which = np.arange(stack)
    within = np.arange(per_image, dtype=np.int64).reshape(views, places, stack)
    for first, indices in source.blocks(PassProgress("choose", len(source.store))):
        rows = np.arange(first, first + len(indices))
        names = np.array([stable_hash("patches", source.store.key(int(r))) for r in rows], dtype=np.uint64)
        hashes = _mixed(names[:, None, None, None] ^ _mixed((indices * per_image + within).astype(np.uint64)))
        slots = slot_of[which, indices].astype(np.int64)
        addresses = rows[:, None, None, None] * per_image + within
        drawn = slots >= 0
        sample.offer(slots[drawn], hashes[drawn], addresses[drawn])
    return sample


def _mixed(numbers: Hashes) -> Hashes:
    """A hash of each number: two rounds of multiply and shift, modulo 2^64."""
    mixed = numbers + np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    hashes: Hashes = mixed ^ (mixed >> np.uint64(31))
    return hashes


def _cut(source: Source, addresses: Ints) -> Pixels:
    """The patches at the addresses, (code, patch, height, width, 3); empty slots are white."""
    height, width = source.patch_size
    patches = np.full((*addresses.shape, height, width, 3), 255, dtype=np.uint8)
    flat, pixels = addresses.reshape(-1), patches.reshape(-1, height, width, 3)
    order = np.argsort(flat, kind="stable")[int((flat < 0).sum()) :]
    image, view, place, _ = np.unravel_index(flat[order], source.axes)
    needed, first = np.unique(image, return_index=True)
    ends = np.append(first[1:], len(order))
    step = source.loader.batch_size
    groups = [needed[i : i + step] for i in range(0, len(needed), step)]
    batches = source.loader.chosen_batches([source.items[group].tolist() for group in groups])
    progress, done = PassProgress("cut", len(needed)), 0
    with progress:
        for group, batch in zip(groups, batches, strict=True):
            _check_keys([source.store.key(int(row)) for row in group], batch["key"])
            views = torch.stack(cut_views(as_rgb(batch["image"]), source.store.views, _size(source)))
            pictures = views.permute(1, 0, 3, 4, 2).numpy()  # image, view, row, column, channel
            for number in range(len(group)):
                for i in range(first[done + number], ends[done + number]):
                    row, column = divmod(int(place[i]), source.grid[1])
                    top, left = row * height, column * width
                    picture = pictures[number, view[i]]
                    pixels[order[i]] = picture[top : top + height, left : left + width]
            done += len(group)
            progress.advance(len(group))
    return patches


def _size(source: Source) -> tuple[int, int]:
    height, width = source.patch_size
    return height * source.grid[0], width * source.grid[1]


def _check_keys(expected: Sequence[str], got: Sequence[str]) -> None:
    if list(expected) != list(got):
        lost = next((key for key in expected if key not in got), expected[0])
        raise TokenStoreError(
            f"{lost}: was tokenized, but can no longer be decoded; repair it or tokenize again"
        )


def write(atlas: Atlas, folder: Path, *, title: str) -> Path:
    """Writes index.html and its PNGs, and removes those of an earlier atlas from the folder.

    Args:
        atlas: The codes and patches.
        folder: The folder to write to; it is created if it does not exist.
        title: The title of the page.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for file in folder.glob("index_*_sheet_*.png"):
        file.unlink()
    sections = []
    for number, section in enumerate(atlas.sections):
        anchor = f"index_{number}"
        values = {
            "id": anchor,
            "name": "The index" if len(atlas.sections) == 1 else f"Level {number} of the stack",
            "summary": str(section),
            "unused": _unused(section),
            "rows": list(_rows(section, folder, f"{anchor}_sheet")),
        }
        sections.append(values)
    page = folder / "index.html"
    write_atomically(page, render(TEMPLATE, title=title, atlas=atlas, sections=sections))
    return page


def _unused(section: Section, most: int = 100) -> str:
    """The codes that are never used, in words; empty if there are none."""
    unused = np.flatnonzero(section.counts == 0)
    more = f" and {len(unused) - most} more" if len(unused) > most else ""
    return ", ".join(map(str, unused[:most])) + more


def _rows(section: Section, folder: Path, name: str) -> Iterator[dict[str, str]]:
    """The rows of a section's table. Writes the sheets that they show, each with the strips of some codes."""
    total, largest = int(section.counts.sum()), int(section.counts.max())
    per_code, height, width = section.patches.shape[1:4]
    factor = max(1, DRAWN_SIDE // max(height, width))
    for start in range(0, len(section.codes), ROWS_A_SHEET):
        file = f"{name}_{start // ROWS_A_SHEET:04d}.png"
        sheet = _spaced(section.patches[start : start + ROWS_A_SHEET])
        Image.fromarray(sheet).save(folder / file)
        for row, code in enumerate(section.codes[start : start + ROWS_A_SHEET]):
            uses = int(section.counts[code])
            across = (width + 1) * int(section.num_patches[start + row]) * factor
            yield {
                "code": str(code),
                "uses": str(uses),
                "share": f"{uses / total:.3%}",
                "bar": f"{100 * uses / largest:.1f}",
                "strip": f"width:{across}px;height:{height * factor}px;"
                f"background-image:url({file});background-position:0 -{row * (height + 1) * factor}px;"
                f"background-size:{(width + 1) * per_code * factor}px {sheet.shape[0] * factor}px",
            }


def _spaced(patches: Pixels) -> Pixels:
    """Arranges (code, patch, height, width, 3) as a sheet with a line below and to the right of each patch."""
    codes, per_code, height, width, _ = patches.shape
    sheet = np.empty((codes, height + 1, per_code, width + 1, 3), dtype=np.uint8)
    sheet[:] = LINE
    sheet[:, :-1, :, :-1] = patches.transpose(0, 2, 1, 3, 4)
    return sheet.reshape(codes * (height + 1), per_code * (width + 1), 3)


if __name__ == "__main__":
    cli.main(main)
