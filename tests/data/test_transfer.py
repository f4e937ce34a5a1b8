"""Batches arrive on the device as they were, also when it is busy."""

from typing import Any

import pytest
import torch
from gpu.devices import CPU_AND_CUDA
from gpu.waiting import without_waiting

from vq.data.transfer import Transfer


def batch(number: int) -> dict[str, Any]:
    images = torch.full((4, 3, 64, 64), number % 256, dtype=torch.uint8)
    return {"image": images, "label": torch.full((4,), number), "key": [f"{number}"], "undecodable": []}


@pytest.mark.parametrize("device", CPU_AND_CUDA)
def test_every_batch_arrives_whole_and_in_order(device: str) -> None:
    to_device = Transfer(torch.device(device))
    busy = torch.randn(1024, 1024, device=device)
    sums = []
    for number in range(20):
        busy = (busy @ busy).clamp(-1, 1) if device == "cuda" else busy
        moved = to_device(batch(number))
        assert moved["key"] == [f"{number}"]
        assert moved["image"].device.type == moved["label"].device.type == device
        sums.append((moved["image"].float().mean(), moved["label"].float().mean()))
    assert [(int(a), int(b)) for a, b in sums] == [(n, n) for n in range(20)]


def test_what_is_on_the_device_is_not_copied() -> None:
    given = batch(0)
    moved = Transfer(torch.device("cpu"))(given)
    assert moved["image"] is given["image"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("is_pinned", [False, True])
def test_the_host_does_not_wait(is_pinned: bool) -> None:
    given = batch(1)
    if is_pinned:
        given["image"] = given["image"].pin_memory()
    to_device = Transfer(torch.device("cuda"))
    with without_waiting("cuda"):
        moved = to_device(given)
    assert int(moved["image"].sum()) == given["image"].numel()
