"""A folder of pictures as a user has it: JPEG and PNG files of many sizes in class folders, some of them broken."""

import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from vq.data import EmojiDataset, PhotoDataset

CATEGORIES = {"faces": "Smileys & Emotion", "flags": "Flags"}
"""Class folders of PNG files -> the categories of the emoji."""
PHOTOGRAPHS = {"objects": ("coffee", "flower", "coins", "chelsea"), "textures": ("brick", "grass", "gravel")}
"""Class folders of JPEG files -> the photographs that they are cut from."""


def make_pictures(root: Path, num: int = 200, num_broken: int = 5) -> None:
    """Writes `num` pictures, equally many in each of four class folders, and breaks some of them.

    Args:
        root: The folder; it is made.
        num: The number of pictures.
        num_broken: The number of broken ones, spread over the pictures.
    """
    rng = np.random.default_rng(0)
    each = num // (len(CATEGORIES) + len(PHOTOGRAPHS))
    emoji = EmojiDataset(split="all")
    for folder, category in CATEGORIES.items():
        (root / folder).mkdir(parents=True)
        paths = [item.path for item in emoji._emoji if item.category == category]
        for path in [paths[i] for i in rng.choice(len(paths), each, replace=False)]:
            shutil.copyfile(path, root / folder / path.name)
    for folder, names in PHOTOGRAPHS.items():
        (root / folder).mkdir(parents=True)
        for i in range(each):
            image = photograph(names[i % len(names)])
            width, height = (
                int(rng.integers(90, side + 1)) for side in (min(image.width, 500), min(image.height, 400))
            )
            left, top = (
                int(rng.integers(image.width - width + 1)),
                int(rng.integers(image.height - height + 1)),
            )
            crop = image.crop((left, top, left + width, top + height))
            crop.save(root / folder / f"IMG_{i:04}.jpg", quality=90)
    files = sorted(path for path in root.rglob("*") if path.is_file())
    for number, path in enumerate(files[i * len(files) // num_broken] for i in range(num_broken)):
        content = path.read_bytes()
        path.write_bytes((content[: len(content) // 2], b"", b"no image", content[:20])[number % 4])


def photograph(name: str) -> Image.Image:
    """Returns a whole photograph of `PhotoDataset`."""
    dataset = PhotoDataset(split="all")
    path = next(path for photo, path in dataset._photos if photo.name == name)
    with Image.open(path) as image:
        return image.convert("RGB")
