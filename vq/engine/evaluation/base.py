"""The result of an evaluation, what all evaluators share, and what the training loop asks of one."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Shaped, UInt8
from torch import Tensor, nn

from vq import distributed
from vq.errors import ConfigError
from vq.metrics import Metric
from vq.ops.images import ChannelsError, check_rgb

Scores = dict[str, float]
Stamps = dict[str, dict[str, str | int | None]]
OnBatch = Callable[
    [Any, UInt8[Tensor, "batch channels height width"] | None, Shaped[Tensor, "batch *index"]], None
]
"""Receives a batch, its uint8 reconstructions (None if there is no image decoder) and its indices."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """The result of one pass over a set.

    Attributes:
        scores: Metric name -> value.
        num_images: Images counted over all ranks, each once.
        undecodable: Names of the images that were left out.
        stamps: Metric name -> what must be equal for two of its values to be comparable; metrics that their
            definition determines completely have none.
    """

    scores: Scores
    num_images: int
    undecodable: list[str]
    stamps: Stamps = field(default_factory=dict)


@runtime_checkable
class AnyEvaluator(Protocol):
    """What the training loop needs of an evaluator, such as `Evaluator` for tokenizers or `ProbeEvaluator` for probes.

    Attributes:
        every: Steps between validations.
    """

    every: int

    def evaluate(
        self,
        model: Any,
        loader: Any,
        *,
        on_batch: OnBatch = ...,
        on_progress: Callable[[int], None] = ...,
    ) -> Evaluation:
        """Computes the model's scores on a set.

        Args:
            model: The model; its mode is restored afterwards.
            loader: Yields this rank's share of the set.
            on_batch: Receives each batch, its uint8 reconstructions (None without an image decoder) and its indices.
            on_progress: Receives the number of samples that this rank has just finished.
        """

    def directions(self) -> dict[str, bool]:
        """Whether a larger value is better, for each score by which models can be ranked."""

    def picture(self, model: Any, loader: Any) -> UInt8[Tensor, "3 height width"]:
        """Draws the model's results for a few fixed samples."""

    def check(self, model: Any, loader: Any) -> None:
        """Finds out from the first batch, before training, whether the set and the metrics fit the model.

        Raises:
            ConfigError: If they do not.
        """


def ignore(*_: object) -> None:
    """Does nothing with what it is told: the default of `on_batch` and `on_progress`."""


def scores_of(metrics: Iterable[Metric]) -> tuple[Scores, Stamps]:
    """Sums metrics over the ranks and computes their scores, and the stamp of each score. Every rank must call it."""
    scores: Scores = {}
    stamps: Stamps = {}
    for metric in metrics:
        metric.sync()
        computed = metric.compute()
        scores |= computed
        if stamp := metric.stamp():
            stamps |= dict.fromkeys(computed, stamp)
    return scores, stamps


def directions_of(metrics: Iterable[Metric]) -> dict[str, bool]:
    """Whether a larger value is better, for each score of the metrics by which models can be ranked."""
    return {
        name: metric.higher_is_better
        for metric in metrics
        if metric.higher_is_better is not None
        for name in metric.ranked_scores()
    }


def check_pictures(rgb: Sequence[int] | None, channels: int) -> None:
    """Checks that images with a number of channels have those that the pictures of an evaluator show.

    Raises:
        ConfigError: If they have not.
    """
    if rgb is not None:
        try:
            check_rgb("evaluator", rgb, channels)
        except ChannelsError as error:
            raise ConfigError(str(error)) from error


def check_views(place: str, module: nn.Module, channels: int) -> None:
    """Checks that the RGB networks inside a loss or a metric can see images with a number of channels.

    Args:
        place: The place of the loss or metric in the config. The error message starts with it.
        module: The loss or metric. A part of it with such a network says which channels it sees (`rgb`).
        channels: The number of channels of the images.

    Raises:
        ConfigError: If a part has no view of such images.
    """
    parts: list[Any] = [part for part in module.modules() if hasattr(part, "rgb")]
    for part in parts:
        try:
            check_rgb(getattr(part, "place", type(part).__name__), part.rgb, channels)
        except ChannelsError as error:
            raise ConfigError(f"{place}: {error}") from error


def names_on_all_ranks(names: Sequence[str]) -> list[str]:
    """The names that any rank has, each once and sorted. Every rank must call it."""
    return sorted({name for some in distributed.gather_objects(list(names)) for name in some})
