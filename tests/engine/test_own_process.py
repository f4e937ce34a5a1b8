"""A process that ends without a result is an error; `tests/test_compare.py` has results, user errors and signals."""

import os
from functools import partial

import pytest

from vq.engine.jobs.own_process import OwnProcess


def test_a_process_that_ends_without_a_result_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="the process ended with code 3"):
        OwnProcess(partial(os._exit, 3)).result()


def test_variables_are_those_of_the_process_alone() -> None:
    own = OwnProcess(partial(os.getenv, "VQ_TEST_VARIABLE"), {"VQ_TEST_VARIABLE": "1"})
    assert "VQ_TEST_VARIABLE" not in os.environ
    assert own.result() == "1"
