"""Small parts of a run, built as a run builds them."""

from collections.abc import Callable
from typing import Any

import pytest
from commands import TINY

from vq import config
from vq.engine import ReconstructionStep, assembly

Tree = dict[str, Any]


@pytest.fixture
def tree() -> Callable[..., Tree]:
    def load(**overrides: Any) -> Tree:
        changes = {"." + key.replace("__", "."): value for key, value in overrides.items()}
        return config.load(TINY, overrides=changes).to_dict()

    return load


@pytest.fixture
def make_step(tree: Callable[..., Tree]) -> Callable[..., ReconstructionStep]:
    def make(**overrides: Any) -> ReconstructionStep:
        loaded = tree(**overrides)
        tokenizer = assembly.make_tokenizer(loaded, seed=1).train()
        return assembly.make_step(loaded, tokenizer)

    return make
