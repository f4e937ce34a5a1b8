"""GPU kernels in Triton, and when they are used instead of PyTorch's operators."""

import importlib.util
import os
from functools import cache

import torch

from vq.errors import UserError

VARIABLE = "VQ_KERNELS"
"""The environment variable that chooses between the kernels (`triton`, the default) and PyTorch (`eager`)."""


def use_kernels(device: torch.device) -> bool:
    """Whether operators on a device use Triton: on a CUDA device, if Triton is installed and `VQ_KERNELS` allows it.

    Raises:
        UserError: If `VQ_KERNELS` is neither `triton` nor `eager`.
    """
    return device.type == "cuda" and _wanted() == "triton" and _is_installed()


def _wanted() -> str:
    choice = os.environ.get(VARIABLE, "triton")
    if choice not in ("triton", "eager"):
        raise UserError(f"{VARIABLE}: expected triton or eager, got {choice!r}")
    return choice


@cache
def _is_installed() -> bool:
    return importlib.util.find_spec("triton") is not None
