"""Integers of every type are converted without a change of value; other types raise."""

import numpy as np
import pytest
import torch

from vq.ops.numerics.integers import IntegerError, as_int64

INTEGERS = [
    torch.uint8,
    torch.uint16,
    torch.uint32,
    torch.uint64,
    torch.int8,
    torch.int16,
    torch.int32,
    torch.int64,
]


@pytest.mark.parametrize("kind", INTEGERS)
def test_every_integer_type_is_widened_at_both_ends_of_its_range(kind: torch.dtype) -> None:
    info = torch.iinfo(kind)
    ends = [info.min, min(info.max, 2**63 - 1)]
    values = torch.tensor(ends, dtype=torch.int64).to(kind)
    found = as_int64("labels", values)
    assert found.dtype == torch.int64
    assert found.tolist() == ends


def test_python_integers_are_taken_as_they_are() -> None:
    assert as_int64("seeds", [-(2**63), 0, 2**63 - 1]).tolist() == [-(2**63), 0, 2**63 - 1]
    assert as_int64("seeds", []).shape == (0,)
    assert as_int64("seeds", [np.int16(-3), np.uint8(255), np.uint64(2**63 - 1)]).tolist() == [
        -3,
        255,
        2**63 - 1,
    ]


@pytest.mark.parametrize("kind", [torch.float32, torch.float64, torch.bfloat16, torch.bool, torch.complex64])
def test_other_tensors_raise_and_are_named(kind: torch.dtype) -> None:
    with pytest.raises(IntegerError, match=rf"seeds: expected integers, got a tensor of {kind}"):
        as_int64("seeds", torch.zeros(2, dtype=kind))


@pytest.mark.parametrize(
    "value", [1.0, True, 2**63, -(2**63) - 1, np.uint64(2**63), np.float32(1), np.bool_(1), "1", None]
)
def test_other_numbers_raise_and_are_named(value: object) -> None:
    with pytest.raises(IntegerError, match=r"seeds: expected (integers|numbers from)"):
        as_int64("seeds", [value])


def test_unsigned_numbers_that_would_wrap_are_refused() -> None:
    large = torch.tensor([-1], dtype=torch.int64).view(torch.uint64)
    with pytest.raises(IntegerError, match=r"seeds: expected numbers below 2\^63"):
        as_int64("seeds", large)
