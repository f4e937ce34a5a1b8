"""Photographs from installed packages, with nothing to download."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from vq.data.base import DataError, ImageDataset
from vq.data.decode import read_image
from vq.data.sets.embedded.packaged import checked_split, package_folder
from vq.data.transforms import bicubic
from vq.registry import DATASETS


class _Photo(NamedTuple):
    name: str
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
        ("retina.jpg", False),
        ("rocket.jpg", False),
    )
)
_SKLEARN_PHOTOS = (
    _Photo("china", "datasets/images/china.jpg"),
    _Photo("flower", "datasets/images/flower.jpg", is_validation=True),
)
_LONGEST_SIDE = 640  # larger photographs are shrunk, or the two largest would give half of all crops


class _Crop(NamedTuple):
    photo: int
    y: int
    x: int


@DATASETS.register_module()
class PhotoDataset(ImageDataset):
    """Cuts crops on a fixed grid from the 14 photographs of scikit-image and scikit-learn whose licence is stated.

    Training crops overlap by half; validation crops do not overlap. Whole photographs are kept for validation:
    chelsea (a cat), coffee, flower, and coins (grey). Grey photographs get three equal channels. The label is the
    photograph.

    Source: scikit-image. Its documentation gives CC0 for brick, gravel (CC0Textures), grass (linolafett), camera (Lav
    Varshney), chelsea (Stefan van der Walt), coffee (Rachel Michetti) and retina (Mikael Häggström); public domain
    for astronaut, hubble_deep_field (NASA) and rocket (SpaceX); no known copyright restrictions for coins (Brooklyn
    Museum) and ihc (Center for Microscopy and Molecular Imaging). Its photographs moon and motorcycle, for which it
    states no licence, are not used. scikit-learn: china (danielbuechele) and flower (vultilion), CC-BY 2.0, from
    Flickr. The extra `demo` installs both packages.

    Args:
        split: `"train"` (10 photographs), `"val"` (4), or `"all"`, which contains the crops of both.
        crop_size: Length of a crop's side in pixels, 16 to 256.

    Raises:
        DataError: If `split` or `crop_size` is out of range, or if a photograph is missing when it is first used.
        MissingPackageError: If a package is missing, when the photographs are first used.
    """

    def __init__(self, *, split: str = "train", crop_size: int = 64) -> None:
        if not 16 <= crop_size <= 256:
            raise DataError(f"PhotoDataset: expected a crop_size of 16 to 256 pixels, got {crop_size}")
        self.split = checked_split("PhotoDataset", split)
        self.crop_size = crop_size
        self._pixels: dict[int, UInt8[Tensor, "3 h w"]] = {}  # 11 MB when all are decoded

    def __len__(self) -> int:
        """The number of crops."""
        return len(self._crops)

    def read(self, index: int) -> UInt8[Tensor, "3 h w"]:
        """Cuts crop `index`, pixels 0..255; each process decodes a photograph once."""
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
        for module, package, photos in (
            ("skimage", "scikit-image", _SKIMAGE_PHOTOS),
            ("sklearn", "scikit-learn", _SKLEARN_PHOTOS),
        ):
            folder = package_folder(module, needed_by="PhotoDataset")
            for photo in photos:
                if not (folder / photo.file).is_file():
                    raise DataError(
                        f"PhotoDataset: expected {photo.file} inside the package {package}, which lacks it; "
                        f"install another version of {package}"
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
            self._pixels[number] = bicubic(image, [height, width])
        return self._pixels[number]


def _shrunk(width: int, height: int) -> tuple[int, int]:
    scale = min(1.0, _LONGEST_SIDE / max(width, height))
    return round(width * scale), round(height * scale)
