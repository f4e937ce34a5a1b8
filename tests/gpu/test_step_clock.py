"""The parts of a step on a GPU, measured by events."""

import time

import pytest
import torch
from gpu.devices import CUDA
from gpu.waiting import without_waiting

from vq.engine.steps.clock import BACKWARD, FORWARD, StepClock


@pytest.mark.parametrize("device", [CUDA])
def test_the_time_is_that_of_the_device_and_marking_does_not_wait_for_it(device: str) -> None:
    clock = StepClock(torch.device(device))
    a = torch.randn(4096, 4096, device=device)
    a @ a
    torch.cuda.synchronize()
    began = time.perf_counter()
    with without_waiting(device):
        clock.start()
        a @ a
        with clock.part(BACKWARD):
            for _ in range(20):
                a @ a
        clock.stop()
    queued = time.perf_counter() - began
    torch.cuda.synchronize()
    took = time.perf_counter() - began
    seconds = clock.seconds()
    assert queued < took / 2
    assert seconds[BACKWARD] > 5 * seconds[FORWARD]
    assert sum(seconds.values()) == pytest.approx(took, rel=0.2)
