"""Constants that compiled code contains."""

import torch

from vq.ops.numerics import constants


def test_the_mark_is_that_of_the_compiler() -> None:
    """Its import takes long, so the module sets the mark by itself."""

    def marked() -> None: ...

    torch.compiler.assume_constant_result(marked)
    assert vars(marked).items() <= vars(constants._compute_once).items()
