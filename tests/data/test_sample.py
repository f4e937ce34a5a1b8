"""Collating samples to batches."""

import pickle

import numpy as np
import pytest
import torch

from vq.data import UndecodableImage, collate


def sample(key, *, height=4, width=6, undecodable="", label=0):
    image = torch.full((3, height, width), len(key), dtype=torch.uint8)
    return {"image": image, "label": label, "key": key, "undecodable": undecodable}


def test_samples_keep_their_order():
    batch = collate([sample("a", label=2), sample("bb", undecodable="broken.png"), sample("ccc", label=1)])
    assert batch["image"].shape == (3, 3, 4, 6)
    assert batch["image"].dtype == torch.uint8
    assert batch["image"][:, 0, 0, 0].tolist() == [1, 2, 3]
    assert batch["label"].tolist() == [2, 0, 1]
    assert batch["label"].dtype == torch.int64
    assert batch["key"] == ["a", "bb", "ccc"]
    assert batch["undecodable"] == ["broken.png"]


def test_a_batch_is_contiguous_whatever_its_images_are():
    images = [
        torch.zeros(4, 6, 3, dtype=torch.uint8).permute(2, 0, 1),
        torch.zeros(3, 6, 4, dtype=torch.uint8).mT,
    ]
    batch = collate([{"image": image, "label": 0, "key": "", "undecodable": ""} for image in images])
    assert batch["image"].is_contiguous()


def test_sizes_that_differ_are_named():
    with pytest.raises(
        ValueError,
        match=r"collate: expected images of one size.*got 4x6 for 'a' and 5x6 for 'c'; add Resize and CenterCrop",
    ):
        collate([sample("a"), sample("b"), sample("c", height=5)])


def test_a_batch_of_nothing_is_refused():
    with pytest.raises(ValueError, match="collate: expected at least 1 sample"):
        collate([])


def test_the_error_of_a_broken_image_survives_pickling():
    error = pickle.loads(pickle.dumps(UndecodableImage("a/b.png", "OSError: truncated")))
    assert (error.name, error.reason, str(error)) == (
        "a/b.png",
        "OSError: truncated",
        "a/b.png: OSError: truncated",
    )


def test_labels_are_whole_numbers():
    assert collate([sample("a", label=np.int32(7)), sample("b", label=2**40)])["label"].tolist() == [7, 2**40]
    for label in (1.5, 1.0, True, "1", 2**63):
        with pytest.raises(ValueError, match="label: expected"):
            collate([sample("a", label=label)])
