"""What a validation returns, and what the training loop asks of the object that validates."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What a pass found.

    Attributes:
        scores: Metric name -> value.
        num_images: Images counted, over all ranks, each once.
        undecodable: Images that were left out, by name.
        stamps: Metric name -> what must be equal for two of its values to be comparable; none for those
            that their definition alone decides.
    """

    scores: dict[str, float]
    num_images: int
    undecodable: list[str]
    stamps: dict[str, dict[str, str | int | None]] = field(default_factory=dict)


@runtime_checkable
class Validator(Protocol):
    """What validates a model during training: `Evaluator` for tokenizers.

    Attributes:
        every: Steps between validations.
    """

    every: int

    def evaluate(
        self,
        model: Any,
        loader: Any,
        *,
        on_batch: Callable[[Any, Tensor, Tensor], None] | None = None,
        on_progress: Callable[[int], None] | None = None,
    ) -> Evaluation:
        """The model's scores on a set; the callables get each batch, and how many samples it had."""

    def picture(self, model: Any, loader: Any) -> Tensor:
        """uint8 (3, h, w): what the model makes of a few fixed samples."""

    def check(self, model: Any, loader: Any) -> None:
        """Finds out with the first batch, before training, whether the set and the metrics fit the model.

        Raises:
            ConfigError: If they do not.
        """
