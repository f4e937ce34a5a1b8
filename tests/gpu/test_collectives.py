"""The collective operations in a group of one process: nccl on a GPU, gloo on a CPU."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from gpu.devices import CPU_AND_CUDA

from vq import distributed


@pytest.fixture(params=CPU_AND_CUDA)
def device(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    kind = str(request.param)
    dist.init_process_group(
        "nccl" if kind == "cuda" else "gloo", init_method=f"file://{tmp_path / 'group'}", rank=0, world_size=1
    )
    try:
        yield kind
    finally:
        dist.destroy_process_group()


def test_each_operation_returns_what_the_only_process_gave(device: str) -> None:
    x = torch.randn(3, 2, device=device)
    assert distributed.is_distributed()
    for operation in (distributed.all_reduce_sum, distributed.all_gather_cat, distributed.broadcast):
        result = operation(x)
        assert result.device.type == device
        assert torch.equal(result, x)
    distributed.barrier()
    assert distributed.gather_objects({"rank": 0}) == [{"rank": 0}]
    assert distributed.broadcast_object("config") == "config"


def test_a_sum_has_the_gradient_of_its_only_term(device: str) -> None:
    x = torch.randn(3, device=device, requires_grad=True)
    distributed.all_reduce_sum_with_gradient(x).square().sum().backward()
    torch.testing.assert_close(x.grad, 2 * x.detach())
