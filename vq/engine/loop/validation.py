"""Validation during training: an evaluator, and the set it scores the model on."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from jaxtyping import UInt8
from torch import Tensor, nn

from vq.data import ImageLoader, TokenLoader
from vq.engine.evaluation.base import AnyEvaluator
from vq.engine.steps.base import TrainStep


class Validation:
    """Scores a model on the validation set.

    Args:
        evaluator: Scores; its `every` says at which steps.
        data: The validation set.
    """

    def __init__(self, *, evaluator: AnyEvaluator, data: ImageLoader | TokenLoader) -> None:
        self.evaluator, self.data = evaluator, data

    @property
    def every(self) -> int:
        """Steps between validations."""
        return self.evaluator.every

    def check(self, model: nn.Module) -> None:
        """Finds out from the first batch whether the set and the metrics fit the model.

        Raises:
            ConfigError: If they do not.
        """
        self.evaluator.check(model, self.data)

    def run(self, model: Any) -> tuple[dict[str, float], UInt8[Tensor, "3 height width"]]:
        """Returns the scores, and a picture of the model's results for a few fixed samples."""
        scores = self.evaluator.evaluate(model, self.data).scores
        return scores, self.evaluator.picture(model, self.data)


@contextmanager
def averaged_weights(train_step: TrainStep) -> Iterator[None]:
    """Inside, the step's model has its averaged weights, if the step keeps an average."""
    average = train_step.weight_ema
    with nullcontext() if average is None else average.applied():
        yield
