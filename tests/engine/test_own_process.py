"""A process that ends without a result is an error; `tests/test_compare.py` has results, user errors and signals."""

import os
from functools import partial

import pytest

from vq.engine.jobs.own_process import call_in_own_process


def test_a_process_that_ends_without_a_result_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="the process ended with code 3"):
        call_in_own_process(partial(os._exit, 3))
