"""Triton kernels by Triton's interpreter on the CPU, and on a GPU where there is one."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from vq.errors import UserError
from vq.ops.distance import largest_product, nearest_code
from vq.ops.kernels import use_kernels

HERE = Path(__file__).parent
needs_triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="needs triton")


@pytest.fixture(scope="module")
def interpreted() -> dict[str, Any]:
    """What the kernels gave in a process of its own, because Triton reads TRITON_INTERPRET when it is imported."""
    done = subprocess.run(
        [sys.executable, HERE / "interpreted_kernels.py"],
        cwd=HERE.parents[1], env=None, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@needs_triton
class TestNearestByTheInterpreter:
    def test_each_code_is_the_best_within_rounding(self, interpreted: dict[str, Any]) -> None:
        assert interpreted["wrong"] == []

    def test_ties_go_to_the_lowest_index(self, interpreted: dict[str, Any]) -> None:
        assert interpreted["ties"] == [0, 0, 0]
        assert interpreted["signed zeros"] == [0]

    def test_what_is_not_finite_stays_in_range(self, interpreted: dict[str, Any]) -> None:
        assert all(0 <= index < 3 for index in interpreted["not finite"])
        assert interpreted["not finite"][3] == 1


@needs_triton
def test_sums_of_softmax_and_their_gradients_have_the_error_of_rounding(interpreted: dict[str, Any]) -> None:
    assert len(interpreted["softmax"]) == 6
    for case, errors in interpreted["softmax"].items():
        assert max(errors) < 4, (case, errors)


@needs_triton
def test_products_with_weights_of_8_bits_have_the_error_of_rounding(interpreted: dict[str, Any]) -> None:
    assert len(interpreted["scaled products"]) == 6
    assert max(interpreted["scaled products"]) < 1, interpreted["scaled products"]


def test_a_cpu_uses_pytorch() -> None:
    assert not use_kernels(torch.device("cpu"))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
class TestOnAGPU:
    def test_the_variable_turns_kernels_off(self, monkeypatch: pytest.MonkeyPatch) -> None:
        x = torch.device("cuda")
        monkeypatch.setenv("VQ_KERNELS", "eager")
        assert not use_kernels(x)
        monkeypatch.setenv("VQ_KERNELS", "fast")
        with pytest.raises(UserError, match="VQ_KERNELS: expected triton or eager, got 'fast'"):
            use_kernels(x)

    @pytest.mark.parametrize("search", [nearest_code, largest_product])
    @pytest.mark.parametrize(
        ("n", "size", "dim"), [(1, 1, 1), (3000, 5000, 8), (1000, 20000, 256), (70, 130, 500)]
    )
    def test_the_code_is_the_best_within_rounding(self, search: Any, n: int, size: int, dim: int) -> None:
        z, codes = torch.randn(n, dim, device="cuda") + 100, torch.randn(size, dim, device="cuda") + 100
        found = search(z, codes)
        centre = codes.double().mean(dim=0)
        if search is nearest_code:
            scores = torch.cdist(z.double() - centre, codes.double() - centre).square() / 2
        else:
            scores = -z.double() @ (codes.double() - centre).T
        chosen = scores.gather(1, found[:, None])[:, 0]
        reach = (codes.double() - centre).norm(dim=1).max()
        length = (z.double() - centre * (search is nearest_code)).norm(dim=1)
        bound = 4 * (dim + 8) * 2**-24 * (length + reach) * reach
        assert bool((chosen <= scores.amin(dim=1) + bound).all())

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_halves_are_compared_in_float32(self, dtype: torch.dtype) -> None:
        z, codes = ((torch.randn(n, 32, device="cuda") + 8).to(dtype) for n in (3000, 5000))
        assert torch.equal(nearest_code(z, codes), nearest_code(z.float(), codes.float()))

    def test_memory_is_linear_in_the_vectors(self) -> None:
        z, codes = torch.randn(8192, 8, device="cuda"), torch.randn(262144, 8, device="cuda")
        nearest_code(z, codes)
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        nearest_code(z, codes)
        assert torch.cuda.max_memory_allocated() - before < 8192 * 262144 * 4 / 20
