"""Tokenization reports for how long its network computed, and for how long it waited for images."""

import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from gpu.devices import CPU_AND_CUDA

from vq.data import DigitsDataset, ImageLoader
from vq.engine.evaluation.pace import Pace, PaceMeter
from vq.engine.jobs.tokenization import tokenize
from vq.networks import StridedCNNDecoder, StridedCNNEncoder
from vq.quantizers import FiniteScalarQuantizer
from vq.tokenizers import ImageTokenizer

NAP = 0.003


class SlowDigits(DigitsDataset):
    """Digits of which each takes a while to read."""

    def read(self, index: int) -> Any:
        time.sleep(NAP)
        return super().read(index)


def tokenizer() -> Any:
    return ImageTokenizer(
        encoder=StridedCNNEncoder(widths=(4, 4), num_blocks=1),
        quantizer=FiniteScalarQuantizer(levels=[8, 8]),
        decoder=StridedCNNDecoder(widths=(4, 4), num_blocks=1),
    ).eval()


def loader(kind: type[DigitsDataset]) -> ImageLoader:
    return ImageLoader(dataset=kind(split="val"), batch_size=8, shuffle=False)


def nap(module: object, inputs: object, seconds: float) -> None:
    time.sleep(seconds)


def test_a_slow_reader_makes_the_network_wait(tmp_path: Path) -> None:
    pace = tokenize(tokenizer(), loader(SlowDigits), tmp_path / "t", settings={}).pace
    assert pace.waited > 0.7 * pace.total > NAP
    assert pace.busy + pace.waited <= pace.total


def test_a_slow_network_does_not_wait(tmp_path: Path) -> None:
    slow = tokenizer()
    slow.encoder.register_forward_pre_hook(partial(nap, seconds=10 * NAP))
    pace = tokenize(slow, loader(DigitsDataset), tmp_path / "t", settings={}).pace
    assert pace.busy > 0.7 * pace.total
    assert pace.busy + pace.waited <= pace.total


def test_a_store_that_was_there_takes_no_computing(tmp_path: Path) -> None:
    for expected in (True, False):
        found = tokenize(tokenizer(), loader(DigitsDataset), tmp_path / "t", settings={})
        assert (found.pace.busy > 0) == expected


def test_it_is_told_in_percent() -> None:
    told = "the network computed for 88 % of the time and waited for images for 12 %"
    assert str(Pace(total=8.0, busy=7.0, waited=0.98)) == told


@pytest.mark.parametrize("device", CPU_AND_CUDA)
def test_the_time_of_the_device_is_measured(device: str) -> None:
    x = torch.randn(1500, 1500, device=device)
    meter = PaceMeter(torch.device(device))
    for _ in range(3):
        with meter.waiting():
            time.sleep(NAP)
        with meter.computing():
            x = (x @ x).clamp(-1, 1)
    x.cpu()
    meter.settle()
    pace = meter.pace()
    assert 0 < pace.busy < pace.total
    assert pace.waited <= pace.total - pace.busy
    assert pace.waited > 2 * NAP if device == "cpu" else pace.waited > 0
