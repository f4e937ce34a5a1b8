"""Images in WebDataset tars, with random access."""

import hashlib
import logging
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, TypedDict, Unpack

import numpy as np
import numpy.typing as npt

from vq.data.base import DataError, ImageDataset, Pixels, UndecodableImage
from vq.data.decode import ImageDecoder
from vq.data.sets.listed import as_text, expanded
from vq.data.sets.sharded.shard_files import ShardFile, Stamp, expand_shards, names_of, shard_file
from vq.data.sets.sharded.tar_index import MAX_TEXT, ByteStrings, MemberText, TarIndex, load_indexes
from vq.data.sets.splits import by_hash
from vq.known_weights import cache
from vq.registry import DATASETS
from vq.text import printable

logger = logging.getLogger(__name__)

IMAGE_SUFFIXES = ("jpg", "jpeg", "jpe", "jfif", "png", "webp", "avif", "bmp", "gif", "tif", "tiff")
SPLITS = ("train", "val", "all")
_ONE_CLASS = ("images",)
_MAX_CLASSES = 2**20  # if labels are numbers; a larger number is something else
_SHOWN = 8  # names in a message


class ShardReading(TypedDict, total=False):
    """How the images in shards are read.

    Attributes:
        channels: The number of channels of the images, as for `ImageDecoder`; 3 by default.
        value_range: The values in the files that become 0 and 255, as for `ImageDecoder`.
        max_pixels: The maximum height times width of an image, as for `ImageDecoder`; larger images count as
            undecodable.
        cache_folder: A folder of this machine to which shards behind an address are copied, whole, at their first use.
            Copies are never deleted. By default nothing is copied, and each image is a request.
        index_folder: Where the indexes of shards are kept; by default `shards` in `$VQ_CACHE`, or in the user's cache.
    """

    channels: int
    value_range: Sequence[float | int] | None
    max_pixels: int
    cache_folder: str | Path | None
    index_folder: str | Path | None


class _Columns(NamedTuple):
    """Images in the order of their indices."""

    keys: ByteStrings
    offset: npt.NDArray[np.int64]  # in bytes, from the start of the tar
    size: npt.NDArray[np.int64]
    caption_offset: npt.NDArray[np.int64]  # -1 for an image without a caption
    caption_size: npt.NDArray[np.int64]
    texts: ByteStrings  # what holds the class
    has_text: npt.NDArray[np.bool_]

    def select(self, mask: npt.NDArray[np.bool_]) -> "_Columns":
        columns: Any = (c.select(mask) if isinstance(c, ByteStrings) else c[mask] for c in self)
        return _Columns(*columns)

    @staticmethod
    def concatenate(parts: "Sequence[_Columns]") -> "_Columns":
        columns: Any = (
            ByteStrings.concatenate(column) if isinstance(column[0], ByteStrings) else np.concatenate(column)
            for column in zip(*parts, strict=True)
        )
        return _Columns(*columns)


class _Images(NamedTuple):
    """The images of a set, and the shards that they are in."""

    names: tuple[str, ...]  # of the shards, as they are in keys
    files: tuple[ShardFile, ...]
    stamps: tuple[Stamp, ...]
    starts: npt.NDArray[np.int64]  # the index of the first image of each shard
    columns: _Columns  # without texts
    labels: npt.NDArray[np.int32]
    class_names: tuple[str, ...]
    facts: tuple[str, ...]

    def shard_of(self, index: int) -> int:
        return int(np.searchsorted(self.starts, index, side="right")) - 1

    def key(self, index: int) -> str:
        return f"{self.names[self.shard_of(index)]}:{as_text(self.columns.keys[index])}"

    def read(self, index: int, offset: int, size: int) -> bytes:
        shard = self.shard_of(index)
        return self.files[shard].read(offset, size, self.stamps[shard])


@DATASETS.register_module()
class WebDataset(ImageDataset):
    """Reads the images in WebDataset tars, each of which can be read without those before it.

    The headers of a tar are read once, and their index is kept in a folder. Then an image is a read of some bytes, so
    that order, ranks, workers and resuming follow the same rules as for any other set (`vq.data.order.SampleOrder`
    reads few shards at a time). Members are never unpickled or run; only images, labels and captions are read.

    A sample consists of consecutive members that agree up to the first dot of the file name, and has one image:
    `cat/001.jpg`, `cat/001.cls` and `cat/001.txt` are the sample `cat/001`. Samples without an image are left out,
    which is logged. The key of an image is the name of its shard, a colon and the key of its sample, such as
    `train-0003.tar:cat/001`; if the shards are in several folders, the name is the path below their common folder.

    A tar that is compressed, cut short, damaged or has two samples of one key is an error, and so is a tar that changes
    while it is used. Links, devices and sparse members of a tar are ignored, which is logged.

    Args:
        shards: A path, an address (`https://`, `s3://` and others, through fsspec), or a list of these, in which braces
            (`{0000..0127}`) and, except for web servers, `*` and `?` stand for several shards. `pipe:COMMAND` runs a
            shell command that prints a shard, if the environment variable VQ_ALLOW_PIPES is 1 and `cache_folder` is
            set.
        image: The suffix, or suffixes, of the member that is the image.
        label: What holds the class: a suffix such as `"cls"`, which includes `cls.txt`, or a field of the JSON member,
            such as `"json:label"`. If all are integers, these are the labels, counted from 0; otherwise they are names
            of classes. None if the images have no classes.
        class_names: The name of each class. By default, integers are their own names, and names are sorted. Give it
            if training and validation images are in separate shards, and some class may be missing in one of them.
        caption: What holds the text for `caption`, a suffix such as `"txt"` or a field such as `"json:caption"`.
        split: `"train"`, `"val"`, or `"all"` for the images of both. Sets with shards of their own for validation give
            these to a set of their own instead.
        val_fraction: The expected fraction of validation images, in (0, 1); the hash of an image's key decides.
        **reading: How the images are read, see `ShardReading`.

    Raises:
        DataError: If an argument is out of range; at the first use, if a shard is missing or cannot be used, or if
            there are no images.
    """

    def __init__(
        self,
        *,
        shards: str | Sequence[str],
        image: str | Sequence[str] = IMAGE_SUFFIXES,
        label: str | None = "cls",
        class_names: Sequence[str] | None = None,
        caption: str | None = None,
        split: str = "all",
        val_fraction: float = 0.1,
        **reading: Unpack[ShardReading],
    ) -> None:
        if split not in SPLITS:
            raise DataError(f"WebDataset: expected split {', '.join(map(repr, SPLITS))}, got {split!r}")
        if not 0 < val_fraction < 1:
            raise DataError(f"WebDataset: expected val_fraction above 0 and below 1, got {val_fraction}")
        for name, value in (("shards", shards), ("image", image)):
            if not value:
                raise DataError(f"WebDataset: expected at least one name in {name}, got {value!r}")
        if class_names is not None and len(set(class_names)) < len(class_names):
            raise DataError("WebDataset: expected class_names that differ, got a name twice")
        decoding: dict[str, Any] = {**reading}
        cache_folder, index_folder = (decoding.pop(name, None) for name in ("cache_folder", "index_folder"))
        self.shards = (shards,) if isinstance(shards, str) else tuple(shards)
        self.image = tuple(s.lower().lstrip(".") for s in ((image,) if isinstance(image, str) else image))
        self.label_text = MemberText(label) if label else None
        self.caption_text = MemberText(caption) if caption else None
        self.split, self.val_fraction = split, val_fraction
        self.cache_folder = None if cache_folder is None else expanded(cache_folder)
        self.index_folder = None if index_folder is None else expanded(index_folder)
        self._class_names = None if class_names is None else tuple(class_names)
        self._decoder = ImageDecoder(place="WebDataset", **decoding)
        self.channels = self._decoder.channels

    def __len__(self) -> int:
        """Returns the number of images."""
        return len(self._images.labels)

    def read(self, index: int) -> Pixels:
        """Decodes image `index` to upright pixels in 0..255."""
        return self._decoder.decode(self.content(index), self.key(index))

    def read_scaled(self, index: int, *, min_side: int) -> Pixels:
        """Decodes image `index`, a large JPEG at a lower resolution of at least `min_side` pixels."""
        return self._decoder.decode(self.content(index), self.key(index), min_side=min_side)

    def size(self, index: int) -> tuple[int, int]:
        """Returns the height and width of image `index`."""
        return self._decoder.size_of(self.content(index), self.key(index))

    def content(self, index: int) -> bytes:
        """Returns the content of the member that is image `index`.

        Raises:
            UndecodableImage: If it is larger than any image of `max_pixels` pixels.
            DataError: If the shard has changed, or cannot be read.
        """
        size = int(self._images.columns.size[index])
        if size > self._decoder.max_bytes:
            raise UndecodableImage(
                self.key(index), f"the member has {size:,} bytes, more than {self._decoder.max_bytes:,}"
            )
        return self._images.read(index, int(self._images.columns.offset[index]), size)

    def caption(self, index: int) -> str:
        """Returns the caption of image `index`; "" if it has none.

        Raises:
            DataError: If the argument `caption` is not set, or the member is not what it says.
        """
        if self.caption_text is None:
            raise DataError(
                "WebDataset: expected to know what holds the captions; set caption='txt', for example"
            )
        columns = self._images.columns
        offset, size = int(columns.caption_offset[index]), int(columns.caption_size[index])
        if offset < 0:
            return ""
        try:
            if size > MAX_TEXT:
                raise ValueError(f"the member has {size:,} bytes, more than {MAX_TEXT:,}")
            text = self.caption_text.of(self._images.read(index, offset, size))
            return (text or b"").decode("utf-8", errors="replace")
        except ValueError as error:
            raise DataError(f"WebDataset: {self.key(index)}: cannot read the caption: {error}") from error

    def sha256(self, index: int) -> str:
        """Returns the SHA-256 of the member that is image `index`, in hexadecimal; "" if it is too large to be read."""
        try:
            return hashlib.sha256(self.content(index)).hexdigest()
        except UndecodableImage:
            return ""

    @property
    def shard_sizes(self) -> Sequence[int]:
        """The number of images in each shard."""
        images = self._images
        return np.diff(images.starts, append=len(images.labels)).tolist()

    def key(self, index: int) -> str:
        """Returns the shard and the key of image `index`, `0003.tar:cat/001`; bytes that are not UTF-8 are escaped."""
        return self._images.key(index)

    def label(self, index: int) -> int:
        """Returns the class of image `index`; 0 if the images have no classes."""
        return int(self._images.labels[index])

    @property
    def class_names(self) -> Sequence[str]:
        """The name of each class, in the order of the labels."""
        return self._images.class_names

    def describe(self) -> str:
        """Summarizes the set in one line: images, classes, sizes, shards, and members that are not read."""
        return "; ".join([super().describe(), f"{len(self._images.files):,} shard(s)", *self._images.facts])

    def check(self) -> None:
        """Reads the indexes of all shards.

        Raises:
            DataError: If a shard is missing or cannot be used, or there are no images.
        """
        _ = self._images

    @cached_property
    def _images(self) -> _Images:
        urls = expand_shards(self.shards, place="WebDataset")
        files = [shard_file(url, self.cache_folder, place="WebDataset") for url in urls]
        indexes = load_indexes(files, self.label_text, self.index_folder or cache() / "shards")
        parts = [self._columns_of(file, index) for file, index in zip(files, indexes, strict=True)]
        columns = _Columns.concatenate(parts)
        names, counts = names_of(urls), [len(part.offset) for part in parts]
        if not sum(counts):
            found = Counter(printable(s) for index in indexes for s in index.suffixes).most_common(_SHOWN)
            there = ", ".join(suffix for suffix, _ in found) or "none"
            raise DataError(
                f"WebDataset: expected members that end in {', '.join(self.image)}, found none in {len(files)} "
                f"shard(s); the suffixes there are {there}; set `image`"
            )
        starts = np.cumsum([0, *counts[:-1]])
        images = _Images(
            names=names,
            files=tuple(files),
            stamps=tuple(index.stamp for index in indexes),
            starts=starts,
            columns=columns,
            labels=np.zeros(sum(counts), dtype=np.int32),
            class_names=_ONE_CLASS,
            facts=tuple(self._facts(indexes, sum(counts))),
        )
        if self.label_text is not None:
            labels, class_names = self._classes(images)
            images = images._replace(labels=labels, class_names=class_names)
        return self._split_of(images)

    def _columns_of(self, file: ShardFile, index: TarIndex) -> _Columns:
        """Finds the images of one shard.

        Raises:
            DataError: If a sample has two images.
        """
        rows = index.members(self.image)
        samples = index.sample[rows]
        twice = np.flatnonzero(samples[1:] == samples[:-1])
        if len(twice):
            both = [index.suffixes[index.suffix[row]] for row in rows[twice[0] : twice[0] + 2]]
            key = as_text(index.keys[int(samples[twice[0]])])
            raise DataError(
                f"{file}: expected one image in the sample {printable(key)!r}, got {' and '.join(both)}; set "
                f"image={both[0]!r}, for example"
            )
        caption_offset, caption_size = np.full((2, len(index.keys)), -1, dtype=np.int64)
        if self.caption_text is not None:
            captions = index.members(self.caption_text.suffixes)
            caption_offset[index.sample[captions]] = index.offset[captions]
            caption_size[index.sample[captions]] = index.size[captions]
        has_image = np.zeros(len(index.keys), dtype=bool)
        has_image[samples] = True
        return _Columns(
            keys=index.keys.select(has_image),
            offset=index.offset[rows],
            size=index.size[rows],
            caption_offset=caption_offset[samples],
            caption_size=caption_size[samples],
            texts=index.texts.select(has_image),
            has_text=index.has_text[has_image],
        )

    def _facts(self, indexes: Sequence[TarIndex], num_images: int) -> Iterator[str]:
        """Yields what is not read, and logs it."""
        for number, what in (
            (sum(len(index.keys) for index in indexes) - num_images, "samples without an image are left out"),
            (sum(index.num_ignored for index in indexes), "links, devices or sparse members are ignored"),
        ):
            if number:
                logger.warning("WebDataset: %d %s", number, what)
                yield f"{number:,} {what}"

    def _classes(self, images: _Images) -> tuple[npt.NDArray[np.int32], tuple[str, ...]]:
        """Returns the label of each image, and the names of the classes.

        Raises:
            DataError: If an image has no class, or one that does not exist.
        """
        assert self.label_text is not None
        texts, has_text = images.columns.texts, images.columns.has_text
        if not has_text.all():
            lacking = np.flatnonzero(~has_text)
            first = printable(images.key(int(lacking[0])))
            raise DataError(
                f"WebDataset: expected a class ({self.label_text.rule}) in each sample, found none in "
                f"{len(lacking):,} of {len(has_text):,}, the first is {first!r}; set label=None if the images have no "
                "classes"
            )
        number: dict[bytes, int] = {}
        labels = np.array([number.setdefault(text, len(number)) for text in texts], dtype=np.int32)
        found = [as_text(text) for text in number]
        if all(re.fullmatch("[0-9]{1,9}", text) for text in found):
            values = [int(text) for text in found]
            most = len(self._class_names) if self._class_names is not None else _MAX_CLASSES
            names = self._class_names or tuple(map(str, range(min(max(values) + 1, most))))
        else:
            names = self._class_names or tuple(sorted(found))
            index = {name: i for i, name in enumerate(names)}
            values, most = [index.get(name, len(names)) for name in found], len(names)
        if max(values) >= most:
            wrong = next(i for i, value in enumerate(values) if value >= most)
            raise DataError(
                f"WebDataset: expected classes below {most:,} or in class_names, got {printable(found[wrong])!r} for "
                f"{printable(images.key(int(np.argmax(labels == wrong))))!r}; set `label` or `class_names`"
            )
        return np.array(values, dtype=np.int32)[labels], names

    def _split_of(self, images: _Images) -> _Images:
        """Keeps the images of the split, and drops the texts of the classes."""
        columns = images.columns._replace(texts=ByteStrings.of([]), has_text=np.zeros(0, dtype=bool))
        if self.split == "all":
            return images._replace(columns=columns)
        is_val = by_hash([images.key(i) for i in range(len(images.labels))], self.val_fraction)
        mask = is_val if self.split == "val" else ~is_val
        return images._replace(
            columns=images.columns.select(mask)._replace(texts=columns.texts, has_text=columns.has_text),
            labels=images.labels[mask],
            starts=np.append(0, np.cumsum(mask))[images.starts],
        )
