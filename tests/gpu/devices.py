"""The devices of the tests in this folder: a CUDA device where there is one, and the CPU for what is quick there."""

import pytest
import torch

CUDA = pytest.param(
    "cuda",
    marks=[
        pytest.mark.gpu,
        pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
    ],
)
CPU_AND_CUDA = ["cpu", CUDA]
