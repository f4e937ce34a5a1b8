"""Every test draws from a fixed seed and leaves torch's thread count alone."""

import os

import pytest
import torch

# A missing weight file must not depend on where pytest was started.
os.environ.pop("WORLD_SIZE", None)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)
