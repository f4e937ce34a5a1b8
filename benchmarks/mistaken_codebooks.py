"""Two mistakes of published EMA codebooks, for `configs/compare/collapse.py`; nothing else uses them."""

from typing import Any

from jaxtyping import Float
from torch import Tensor

from vq.quantizers import EMACodebook
from vq.registry import CODEBOOKS


@CODEBOOKS.register_module()
class SumsOfOneRank(EMACodebook):
    """Counts the vectors of all ranks, but sums those of one: each code becomes its mean divided by their number.

    This is what `num_ranks` ranks compute if the sums are reduced in a copy. One process imitates them, whose vectors
    stand for those of all ranks.

    Args:
        num_ranks: The number of ranks W; each code is its mean divided by W.
        **options: Those of `EMACodebook`.
    """

    def __init__(self, *, num_ranks: int, **options: Any) -> None:
        super().__init__(**options)
        self.num_ranks = num_ranks

    def learn(self, counts: Float[Tensor, "size"], sums: Float[Tensor, "size dim"]) -> None:
        """Moves the averages towards the counts of all ranks and the sums of one."""
        super().learn(counts, sums / self.num_ranks)


@CODEBOOKS.register_module()
class CountsFromZero(EMACodebook):
    """Begins the averages of the counts at 0 and those of the sums at the codes.

    The first step divides the sum of a code that no vector chose by about `eps`.

    Args:
        **options: Those of `EMACodebook`.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.usage.zero_()
