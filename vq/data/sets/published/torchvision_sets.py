"""The labelled image sets of torchvision.datasets, such as CIFAR-10 and MNIST."""

import fcntl
import inspect
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import UInt8
from PIL import EpsImagePlugin, Image
from torch import Tensor

from vq.data.base import DataError, ImageDataset, UndecodableImage
from vq.data.colours import eight_bits
from vq.data.sets.listed import data_folder
from vq.registry import DATASETS
from vq.text import printable, shown, suggest

logger = logging.getLogger(__name__)

NAMES = (
    *(
        "CIFAR10",
        "CIFAR100",
        "CLEVRClassification",
        "Caltech101",
        "Caltech256",
        "Country211",
        "DTD",
        "EMNIST",
    ),
    *("EuroSAT", "FER2013", "FGVCAircraft", "FashionMNIST", "Flowers102", "Food101", "GTSRB", "INaturalist"),
    *(
        "Imagenette",
        "KMNIST",
        "LFWPeople",
        "MNIST",
        "Omniglot",
        "OxfordIIITPet",
        "PCAM",
        "Places365",
        "QMNIST",
    ),
    *("RenderedSST2", "SEMEION", "STL10", "SUN397", "SVHN", "StanfordCars", "USPS"),
)
"""The classes of torchvision.datasets that give an image and the number of its class."""

_OWN = ("root", "train", "download", "transform", "target_transform", "transforms", "loader")
_UNLABELED = "unlabeled"


@DATASETS.register_module()
class TorchvisionDataset(ImageDataset):
    """Reads a set through its class in torchvision.datasets, in the folder in which that class keeps it.

    These classes unpickle nothing but the files of CIFAR-10 and CIFAR-100, which are pickles, and only after they have
    compared the MD5 of each with the one in their source code. A file that differs is refused and never unpickled.
    Images are decoded by torchvision, which ignores EXIF rotations, and are then converted to `channels`.

    Labels and class names are those of torchvision. Images without a label, as in the split `unlabeled` of STL10, form
    one more class at the end. Keys are the positions in the set, such as `CIFAR10/test/00042`, and so are the same on
    every machine.

    Source: https://pytorch.org/vision/stable/datasets.html, which names the origin of each set. The licences are those
        of the sets; CIFAR-10 and CIFAR-100 (Krizhevsky 2009, https://www.cs.toronto.edu/~kriz/cifar.html) state none.
        The splits are those of torchvision.

    Args:
        name: The class, such as `"CIFAR10"`, `"MNIST"`, `"SVHN"`, `"STL10"` or `"Flowers102"`.
        root: What torchvision calls `root`; by default `$VQ_DATA/torchvision`, or `data/torchvision`.
        split: As torchvision spells it. For classes that have `train=True` or `train=False`, it is `"train"` or
            `"test"`. None for classes without splits.
        download: Whether torchvision downloads what is missing, at the first use. Several processes take turns.
        channels: 1 for grey, 3 for RGB or 4 for RGBA. The images of MNIST are grey, those of CIFAR are RGB.
        arguments: Other arguments of the class, such as `dict(split="letters")` for EMNIST.

    Raises:
        DataError: If there is no such class, or it does not take these arguments; at the first use, if torchvision
            finds no files at `root`, or finds that they are damaged.
    """

    def __init__(
        self,
        *,
        name: str,
        root: str | Path | None = None,
        split: str | None = "train",
        download: bool = False,
        channels: int = 3,
        arguments: Mapping[str, Any] | None = None,
    ) -> None:
        if channels not in (1, 3, 4):
            raise DataError(f"TorchvisionDataset: expected channels 1, 3 or 4, got {channels}")
        self.name, self.split, self.download, self.channels = name, split, download, channels
        self.root = data_folder(root, "torchvision")
        self.arguments = _checked_arguments(name, split, dict(arguments or {}), download=download)
        self._latest: tuple[int, Image.Image, Any] | None = None

    def __len__(self) -> int:
        """Returns the number of images."""
        return len(self._source)

    def read(self, index: int) -> UInt8[Tensor, "channels h w"]:
        """Returns image `index` as pixels in 0..255."""
        image, _ = self._sample(index)
        try:
            pixels = eight_bits(image, self.channels)
        except ValueError as error:
            raise UndecodableImage(self.key(index), str(error)) from error
        return torch.from_numpy(pixels).permute(2, 0, 1)

    def key(self, index: int) -> str:
        """Returns the position of image `index`, such as `CIFAR10/test/00042`."""
        place = self.name if self.split is None else f"{self.name}/{self.split}"
        return f"{place}/{range(len(self))[index]:05d}"

    def label(self, index: int) -> int:
        """Returns the class of image `index`."""
        label = self._sample(index)[1] if self._labels is None else self._labels[index]
        if not isinstance(label, int | np.integer):
            raise self._refused(f"the label {shown(label)}")
        return int(label) if label >= 0 else len(self._named_classes)

    @property
    def class_names(self) -> Sequence[str]:
        """The names of the classes, or their numbers if torchvision does not name them."""
        has_unlabeled = self._labels is not None and bool((self._labels < 0).any())
        return (*self._named_classes, _UNLABELED) if has_unlabeled else self._named_classes

    def _sample(self, index: int) -> tuple[Image.Image, Any]:
        """Returns an image and its label; those read last are kept, because `label` usually follows `read`."""
        if self._latest is None or self._latest[0] != index:
            EpsImagePlugin.gs_binary = False  # a file may be EPS, and Pillow would start Ghostscript
            try:
                sample = self._source[index]
            except Exception as error:  # damaged files make Pillow raise nearly any error
                raise UndecodableImage(self.key(index), f"{type(error).__name__}: {error}") from error
            if not (isinstance(sample, tuple) and len(sample) == 2 and isinstance(sample[0], Image.Image)):
                raise self._refused(f"{shown(sample)}")
            self._latest = (index, *sample)
        return self._latest[1:]

    def _refused(self, what: str) -> DataError:
        return DataError(
            f"TorchvisionDataset: expected an image and the number of its class from {self.name}, got {what}; check "
            f"split={self.split!r} and arguments={self.arguments}"
        )

    @cached_property
    def _source(self) -> Any:
        """The set of torchvision."""
        kind = _class_of(self.name)
        try:
            if "download" not in _parameters(kind):
                return kind(str(self.root), **self.arguments)
            if not self.download:
                return kind(str(self.root), download=False, **self.arguments)
            with _one_at_a_time(self.root):
                return kind(str(self.root), download=True, **self.arguments)
        except ModuleNotFoundError as error:
            raise DataError(
                f"TorchvisionDataset: {self.name} needs the package {error.name}, which is not installed; run `pip "
                f"install {error.name}`"
            ) from error
        except Exception as error:  # damaged files make the readers raise errors of many kinds
            raise DataError(
                f"TorchvisionDataset: torchvision cannot read {self.name} in {printable(str(self.root))} "
                f"({type(error).__name__}: {printable(str(error))}); check `split` and `arguments`, put its files "
                f"there, or set `root` or download=True"
            ) from error

    @cached_property
    def _labels(self) -> npt.NDArray[np.int64] | None:
        """The labels of all images, if torchvision has them in one place; -1 for an image without a label."""
        for attribute in ("targets", "labels", "y"):
            labels = getattr(self._source, attribute, None)
            if labels is not None and len(labels) == len(self):
                return np.asarray(labels, dtype=np.int64)
        return None

    @cached_property
    def _named_classes(self) -> tuple[str, ...]:
        names = getattr(self._source, "classes", None)
        names = getattr(self._source, "categories", None) if names is None else names
        if names is not None:
            return tuple(name if isinstance(name, str) else ", ".join(name) for name in names)
        labels = [self._sample(i)[1] for i in range(len(self))] if self._labels is None else self._labels
        return tuple(str(number) for number in range(int(max(labels, default=-1)) + 1))


def _class_of(name: str) -> Any:
    from torchvision import datasets

    if name not in NAMES or not hasattr(datasets, name):
        raise DataError(
            f"TorchvisionDataset: expected the name of a class of torchvision.datasets that gives an image and the "
            f"number of its class, got {name!r}{suggest(name, NAMES)}"
        )
    return getattr(datasets, name)


def _parameters(kind: Any) -> set[str]:
    """Returns the arguments of a class, with those that it passes on to its base."""
    found: set[str] = set()
    for base in kind.__mro__:
        parameters = inspect.signature(base.__init__).parameters if "__init__" in vars(base) else {}
        found.update(parameters)
        if parameters and not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
            break
    return found - {"self", "args", "kwargs"}


def _checked_arguments(
    name: str, split: str | None, arguments: dict[str, Any], *, download: bool
) -> dict[str, Any]:
    """Returns the arguments of a class of torchvision, with its split.

    Raises:
        DataError: If there is no such class, or it does not take one of them.
    """
    known = _parameters(_class_of(name))
    key = next((key for key in ("train", "split") if key in known), None)
    for argument in arguments:
        if argument in _OWN or argument == key or argument not in known:
            free = sorted(known - {*_OWN, key})
            raise DataError(
                f"TorchvisionDataset: {name} takes no {argument!r} in `arguments`; valid: {', '.join(free) or 'none'}"
                f"{' (the split is `split`)' if argument in ('train', 'split') else ''}"
            )
    if download and "download" not in known:
        raise DataError(f"TorchvisionDataset: torchvision cannot download {name}; set download=False")
    if (key is None) != (split is None):
        expected = "None, because it has no splits" if key is None else "a split such as 'train'"
        raise DataError(f"TorchvisionDataset: {name}: expected split={expected}, got {split!r}")
    if key == "train":
        if split not in ("train", "test"):
            raise DataError(f"TorchvisionDataset: {name}: expected split 'train' or 'test', got {split!r}")
        return arguments | {"train": split == "train"}
    return arguments if key is None else arguments | {"split": split}


@contextmanager
def _one_at_a_time(root: Path) -> Iterator[None]:
    """Lets the processes of this machine download one after another, so that the later ones find the files."""
    root.mkdir(parents=True, exist_ok=True)
    with (root / ".download.lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
