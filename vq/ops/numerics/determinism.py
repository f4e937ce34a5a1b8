"""Sums in a fixed order: PyTorch's algorithms that give the same bits each time."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from vq.errors import UserError

WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"
WORKSPACES = (":4096:8", ":16:8")
"""The values of the environment variable with which cuBLAS adds in a fixed order."""
COST = (
    "deterministic: every sum is computed in a fixed order, and cuDNN tries no algorithms; a step takes 2 % longer "
    "on a CPU, and more on a GPU, where it was not measured"
)
"""What the log says: the steps of fsq/1000_emoji on one thread, 2026-11-27."""
MISSING = "does not have a deterministic implementation"
"""What PyTorch says of an operation that has none on the present device."""


class NotDeterministicError(UserError, RuntimeError):
    """Something here cannot be computed in a fixed order."""


@contextmanager
def deterministic(*, is_on: bool = True) -> Iterator[None]:
    """Inside, PyTorch adds in a fixed order on every device; enter it before the first use of a GPU.

    Args:
        is_on: Change anything at all.

    Raises:
        NotDeterministicError: If CUBLAS_WORKSPACE_CONFIG has a value with which cuBLAS does not, or an operation has no
            deterministic implementation on the device.
    """
    if not is_on:
        yield
        return
    is_given = WORKSPACE in os.environ
    given = os.environ.setdefault(WORKSPACE, WORKSPACES[0])
    if given not in WORKSPACES:
        raise NotDeterministicError(
            f"the environment variable {WORKSPACE}: expected {' or '.join(WORKSPACES)} with --deterministic, got "
            f"{given!r}; unset it"
        )
    cudnn = torch.backends.cudnn
    before = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        cudnn.deterministic,
        cudnn.benchmark,
    )
    torch.use_deterministic_algorithms(mode=True)
    cudnn.deterministic, cudnn.benchmark = True, False
    try:
        yield
    except RuntimeError as error:
        if MISSING not in str(error):
            raise
        operation = str(error).partition(MISSING)[0]
        raise NotDeterministicError(
            f"--deterministic: {operation}{MISSING}; leave out --deterministic, or replace the part that computes it"
        ) from error
    finally:
        if not is_given:
            del os.environ[WORKSPACE]
        torch.use_deterministic_algorithms(mode=before[0], warn_only=before[1])
        cudnn.deterministic, cudnn.benchmark = before[2:]
