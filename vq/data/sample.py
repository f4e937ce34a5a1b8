"""Samples and batches of images."""

from collections.abc import Sequence
from typing import NotRequired, TypedDict

import torch
from jaxtyping import Float32, Int64, UInt8
from torch import Tensor

from vq.data.base import DataError, Pixels
from vq.ops.numerics.integers import as_int64

_RGB = 3  # channels


class Sample(TypedDict):
    """An image with its label and key."""

    image: Pixels  # values in 0..255
    label: int
    key: str  # the name of the image in its dataset, the same on every machine
    undecodable: str  # the name of the undecodable image that this one replaces; "" if it replaces none


class Batch(TypedDict):
    """Images of one size with labels and keys; the engine moves them to the device and rescales them to [-1, 1]."""

    image: UInt8[Tensor, "b channels h w"] | Float32[Tensor, "b channels h w"]  # values in 0..255
    label: Int64[Tensor, "b"]
    key: list[str]
    undecodable: list[str]  # the names of images that could not be decoded; usually empty
    sha256: NotRequired[list[str]]  # of all images of the group, undecodable ones too; in chosen batches only


def collate(samples: Sequence[Sample]) -> Batch:
    """Stacks samples into a batch.

    Args:
        samples: The samples, at least one.

    Raises:
        DataError: If there are no samples, or their images differ in size or type.
    """
    if not samples:
        raise DataError(
            "collate: expected at least 1 sample, got none; pass samples of images that can be decoded"
        )
    first = samples[0]
    for sample in samples:
        if sample["image"].shape != first["image"].shape:
            raise DataError(
                "collate: expected images of one size in a batch, got "
                f"{_size(first)} for {first['key']!r} and {_size(sample)} for {sample['key']!r}; "
                "add Resize and CenterCrop or RandomCrop to the loader's transforms"
            )
    return {
        "image": torch.stack([sample["image"] for sample in samples]),
        "label": as_int64("label", [sample["label"] for sample in samples], device=torch.device("cpu")),
        "key": [sample["key"] for sample in samples],
        "undecodable": [sample["undecodable"] for sample in samples if sample["undecodable"]],
    }


def _size(sample: Sample) -> str:
    channels, height, width = sample["image"].shape
    return f"{height}x{width}" if channels == _RGB else f"{height}x{width} with {channels} channel(s)"
