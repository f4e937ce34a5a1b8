"""Packing digits into indices and unpacking them."""

import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

from vq.ops.digits import pack_digits, place_values, reverse_digits, unpack_digits

LEVELS = st.lists(st.integers(2, 9), min_size=1, max_size=5)


@settings(deadline=None, max_examples=50)
@given(levels=LEVELS)
def test_every_index_has_its_own_digits(levels):
    sizes, every = torch.tensor(levels), torch.arange(math.prod(levels))
    digits = unpack_digits(every, sizes)
    assert ((digits >= 0) & (digits < sizes)).all()
    assert torch.equal(pack_digits(digits, sizes), every)
    assert torch.equal((digits * torch.tensor(place_values(levels))).sum(-1), every)


@settings(deadline=None, max_examples=50)
@given(levels=LEVELS)
def test_reversing_translates_from_big_endian_and_back(levels):
    every = torch.arange(math.prod(levels))
    ours = reverse_digits(every, levels)
    first_digit_by_peer = every // math.prod(levels[1:])
    assert torch.equal(unpack_digits(ours, torch.tensor(levels))[:, 0], first_digit_by_peer)
    assert torch.equal(reverse_digits(ours, levels[::-1]), every)


def test_the_first_digit_is_the_least_significant():
    assert unpack_digits(torch.tensor([1, 8, 40]), torch.tensor([8, 5, 5])).tolist() == [
        [1, 0, 0],
        [0, 1, 0],
        [0, 0, 1],
    ]


def test_an_index_beyond_the_levels_is_refused():
    with pytest.raises(ValueError, match=r"reverse_digits: expected indices in \[0, 4\), got 0 to 4"):
        reverse_digits(torch.tensor([0, 4]), [2, 2])
