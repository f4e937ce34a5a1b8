"""A store on disk: something of each image of a set, in records of equal size, with random access."""

import math
from abc import ABC, abstractmethod
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from vq.data.stores.token_manifest import StoreFormat, read_manifest
from vq.data.stores.token_shards import ShardFiles, TokenStoreError, read_notes
from vq.files import sha256_of
from vq.text import printable


class Store(ABC):
    """Reads a store. Reading an image reads only its own bytes.

    Args:
        directory: The folder that `vq.tokenize` has written.

    Raises:
        TokenStoreError: If there is no manifest, it is damaged or of another format, or a shard has the wrong size.

    Attributes:
        kind: The format of the store.
        axes: The shape of what is stored of one view of an image.
        views: The number of views of each image.
        width: The number of bytes of each value.
        record: The number of bytes of an image.
    """

    kind: ClassVar[StoreFormat]

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.manifest = read_manifest(directory, kind=self.kind)
        self.axes = tuple(self.manifest["axes"])
        self.views, self.width = int(self.manifest["views"]), self._width()
        self.record = self.views * math.prod(self.axes) * self.width
        self.shards = [ShardFiles(directory=directory, number=i) for i in range(len(self.manifest["shards"]))]
        self._notes_read: dict[int, dict[str, Any]] = {}
        counts = [int(shard["count"]) for shard in self.manifest["shards"]]
        for files, count in zip(self.shards, counts, strict=True):
            size = files.tokens.stat().st_size if files.tokens.is_file() else -1
            if size != count * self.record:
                raise TokenStoreError(
                    f"{printable(str(files.tokens))}: expected {count * self.record} bytes for {count} images, got "
                    f"{'no file' if size < 0 else size}; delete it and tokenize again"
                )
        self.ends = np.cumsum(
            counts, dtype=np.int64
        )  # does not overflow: no count exceeds the size of its file

    @abstractmethod
    def _width(self) -> int:
        """Returns the number of bytes of a value, according to the manifest."""

    @abstractmethod
    def _check_values(self, number: int) -> None:
        """Checks the values of a shard that has images.

        Raises:
            TokenStoreError: If they are not what the manifest says.
        """

    def __len__(self) -> int:
        """Returns the number of images."""
        return int(self.ends[-1]) if len(self.ends) else 0

    def content(self, index: int, view: int = 0) -> bytes:
        """Reads the bytes of a view of an image.

        Args:
            index: The number of the image.
            view: The number of the view.

        Raises:
            IndexError: If there is no such image or view.
        """
        if not 0 <= view < self.views:
            raise IndexError(f"{self.directory}: expected a view in [0, {self.views}), got {view}")
        shard, row = self._location(index)
        size = self.record // self.views
        start = row * self.record + view * size
        return bytes(self._maps[shard][start : start + size].tobytes())

    def label(self, index: int) -> int:
        """Returns the class of an image."""
        shard, row = self._location(index)
        return int(self._notes(shard)["labels"][row])

    def key(self, index: int) -> str:
        """Returns the name of an image."""
        shard, row = self._location(index)
        return str(self._notes(shard)["keys"][row])

    def verify(self) -> None:
        """Checks the checksum of every shard, its values, and its labels.

        Manifests of older versions have no checksums of notes; such notes must be readable and belong to their shard.

        Raises:
            TokenStoreError: If a shard is damaged.
        """
        for number, (files, shard) in enumerate(zip(self.shards, self.manifest["shards"], strict=True)):
            checksums = {files.tokens: shard["sha256"]}
            if "notes_sha256" in shard:
                checksums[files.notes] = shard["notes_sha256"]
            else:
                self._check_notes(number)
            for file, expected in checksums.items():
                found = sha256_of(file) if file.is_file() else "no file"
                if found != expected:
                    raise TokenStoreError(
                        f"{printable(str(file))}: expected the checksum {expected[:16]}..., got {found[:16]}...: "
                        f"the file was changed or damaged; delete it and tokenize again"
                    )
            labels = self._notes(number)["labels"]
            if max(labels, default=0) >= max(1, len(self.manifest["class_names"])):
                raise TokenStoreError(
                    f"{printable(str(files.notes))}: expected labels below {len(self.manifest['class_names'])}, the "
                    f"number of classes, got {max(labels)}; delete it and tokenize again"
                )
            if shard["count"]:
                self._check_values(number)

    def _location(self, index: int) -> tuple[int, int]:
        """Returns the number of the shard of an image, and the image's number inside the shard."""
        if not 0 <= index < len(self):
            raise IndexError(f"{self.directory}: expected an index in [0, {len(self)}), got {index}")
        shard = int(np.searchsorted(self.ends, index, side="right"))
        return shard, index - (int(self.ends[shard - 1]) if shard else 0)

    @cached_property
    def _maps(self) -> list[Any]:
        return [
            np.memmap(files.tokens, dtype=np.uint8, mode="r") if shard["count"] else np.zeros(0, np.uint8)
            for files, shard in zip(self.shards, self.manifest["shards"], strict=True)
        ]

    def _notes(self, shard: int) -> dict[str, Any]:
        if shard not in self._notes_read:
            listed = self.manifest["shards"][shard]
            num_images = int(listed["count"]) + len(listed["undecodable"])
            self._notes_read[shard] = read_notes(self.shards[shard], num_images=num_images)
        return self._notes_read[shard]

    def _check_notes(self, number: int) -> None:
        """Checks that notes are not damaged (zlib has its own checksum) and belong to their shard."""
        files, shard, notes = self.shards[number], self.manifest["shards"][number], self._notes(number)
        if notes["sha256"] != shard["sha256"] or notes["count"] != shard["count"]:
            raise TokenStoreError(
                f"{printable(str(files.notes))}: expected the notes of {shard['count']} images, got those of another "
                f"shard ({notes['count']} images); delete it and tokenize again"
            )
