"""Evaluation of a linear probe: the shares of a set that it classifies correctly."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float64, Int64, UInt8
from torch import Tensor

from vq import distributed
from vq.engine.evaluation.base import Evaluation, OnBatch, Scores, check_pictures, ignore, names_on_all_ranks
from vq.engine.evaluation.pictures import index_picture
from vq.engine.steps.probe import features_of
from vq.errors import ConfigError
from vq.layers.modes import evaluating
from vq.ops.images import as_rgb, checked_rgb, grid
from vq.probes import LinearProbe
from vq.registry import ENGINES

GREEN, RED = (0, 160, 0), (220, 0, 0)
_SIDE, _BORDER = 64, 3  # pixels: of the picture of an index map, and of the coloured border of an image


@ENGINES.register_module()
class ProbeEvaluator:
    """Scores a linear probe on a set; the scores do not depend on the number of ranks.

    `top1` is the share of images whose class has the largest logit, `top5` that of images whose class is among the
    five largest; a class that shares its logit with others ranks last among them. `class_mean_top1` is the mean of the
    `top1` of each class that occurs, which counts rare classes as much as frequent ones. `loss` is the mean
    cross-entropy in nats.

    Args:
        top: The numbers k of the scores `top{k}`.
        every: Steps between validations during training; the last step is always validated.
        num_grid_images: Number of images of the picture.
        rgb: The channels that pictures show as red, green and blue; by default as in `vq.ops.images.preview`.

    Raises:
        ValueError: If `every`, `num_grid_images` or a number in `top` is below 1, `top` is empty, or `rgb` is invalid.
    """

    def __init__(
        self,
        *,
        top: Sequence[int] = (1, 5),
        every: int = 1000,
        num_grid_images: int = 16,
        rgb: Sequence[int] | None = None,
    ) -> None:
        if every < 1 or num_grid_images < 1 or min(top, default=0) < 1:
            raise ValueError(
                f"expected every, num_grid_images and all of top to be at least 1, got {every}, {num_grid_images} "
                f"and {list(top)}"
            )
        self.rgb = checked_rgb("ProbeEvaluator", rgb)
        self.top, self.every, self.num_grid_images = tuple(dict.fromkeys(top)), every, num_grid_images

    @torch.no_grad()
    def evaluate(
        self,
        model: LinearProbe,
        loader: Any,
        *,
        on_batch: OnBatch = ignore,
        on_progress: Callable[[int], None] = ignore,
    ) -> Evaluation:
        """Classifies every sample of the set once, in eval mode.

        Args:
            model: Its mode is restored afterwards.
            loader: Yields this rank's share of the set.
            on_batch: Not called: a probe reconstructs nothing.
            on_progress: Receives the number of samples that this rank has just finished.
        """
        device = next(model.parameters()).device
        ranks = (1, *self.top)
        sums = torch.zeros(model.num_classes, 2 + len(ranks), dtype=torch.float64, device=device)
        undecodable: list[str] = []
        with evaluating(model):
            for batch in loader.pass_batches():
                undecodable += batch["undecodable"]
                if not batch["key"]:
                    continue
                sums += self._sums(model, batch, ranks, device)
                on_progress(len(batch["label"]))
        sums = distributed.all_reduce_sum(sums)
        return Evaluation(
            scores=self._scores(sums),
            num_images=int(sums[:, 0].sum()),
            undecodable=names_on_all_ranks(undecodable),
        )

    def _sums(
        self, model: LinearProbe, batch: Mapping[str, Any], ranks: Sequence[int], device: torch.device
    ) -> Float64[Tensor, "classes sums"]:
        """Over the images of each class in a batch: their number, cross-entropy, and how many rank among the first."""
        features, label = features_of(batch, model, device)
        logits = model(features).double()
        found = within(logits, label, ranks)
        values = torch.cat([F.cross_entropy(logits, label, reduction="none")[:, None], found.double()], dim=1)
        values = torch.cat([torch.ones_like(values[:, :1]), values], dim=1)
        sums: Tensor = values.new_zeros(model.num_classes, values.shape[1]).index_add_(0, label, values)
        return sums

    def _scores(self, sums: Float64[Tensor, "classes sums"]) -> Scores:
        total = sums.sum(dim=0)
        means = (total / total[0]).tolist()
        occurring = sums[sums[:, 0] > 0]
        scores = {"loss": means[1]}
        scores |= {f"top{k}": mean for k, mean in zip(self.top, means[3:], strict=True)}
        return {**scores, "class_mean_top1": float((occurring[:, 2] / occurring[:, 0]).mean())}

    def directions(self) -> dict[str, bool]:
        """Whether a larger value is better, for each score."""
        return {"loss": False, **{f"top{k}": True for k in self.top}, "class_mean_top1": True}

    @torch.no_grad()
    def check(self, model: LinearProbe, loader: Any) -> None:
        """Finds out from the first batch, before training, whether the set fits the probe.

        Args:
            model: Neither its mode nor its state is changed.
            loader: Its first batch is read.

        Raises:
            ConfigError: If a score is always 1, the images have no channels `rgb`, or the probe cannot take the batch.
            UndecodableSetError: If too many images of the batch are broken.
        """
        check_pictures(self.rgb, model.features.image_channels)
        if max(self.top) >= model.num_classes:
            raise ConfigError(
                f"evaluator.top: expected numbers below the {model.num_classes} classes of the probe, got "
                f"{list(self.top)}; the class is always among the first {max(self.top)}"
            )
        batch = next(iter(loader.pass_batches()), None)
        if batch is None or not batch["key"]:
            return
        try:
            with evaluating(model):
                self._sums(model, batch, (1,), next(model.parameters()).device)
        except (ValueError, RuntimeError, TypeError) as error:
            raise ConfigError(f"evaluator: does not fit val_data: {error}") from error

    @torch.no_grad()
    def picture(self, model: LinearProbe, loader: Any) -> UInt8[Tensor, "3 height width"]:
        """Draws some images of the set, or their index maps, in a green border if classified correctly, else in red."""
        batch = loader.fixed_batch(self.num_grid_images)
        with evaluating(model):
            features, label = features_of(batch, model, next(model.parameters()).device)
            is_right = within(model(features).double(), label, [1])[:, 0].tolist()
        images = (
            as_rgb(batch["image"], self.rgb) if "image" in batch else _index_maps(batch["indices"], model)
        )
        framed = [
            _framed(image, GREEN if right else RED) for image, right in zip(images, is_right, strict=True)
        ]
        return grid(torch.stack(framed), columns=8)


def within(
    logits: Float64[Tensor, "batch classes"], label: Int64[Tensor, "batch"], ranks: Sequence[int]
) -> Bool[Tensor, "batch ranks"]:
    """Whether the class of each image is among the first `k` by its logit, for each k; a tie counts against it.

    If the logit of the class is NaN, it is among none.

    Example:
        >>> within(torch.tensor([[3.0, 1.0, 2.0], [1.0, 1.0, 0.0]]).double(), torch.tensor([2, 0]), [1, 2])
        tensor([[False,  True],
                [False,  True]])
    """
    rank = (logits >= logits.gather(1, label[:, None])).sum(dim=1, keepdim=True)
    return (rank >= 1) & (rank <= torch.tensor(ranks, device=logits.device))


def _index_maps(indices: Tensor, model: LinearProbe) -> UInt8[Tensor, "batch 3 height width"]:
    size = 0 if model.features.tokenizer is None else model.features.tokenizer.codebook_size
    return torch.stack([index_picture(one.cpu(), size, height=_SIDE, width=_SIDE) for one in indices])


def _framed(image: Tensor, colour: tuple[int, int, int]) -> UInt8[Tensor, "3 height width"]:
    _, height, width = image.shape
    picture = (
        torch.tensor(colour, dtype=torch.uint8)
        .view(3, 1, 1)
        .repeat(1, height + 2 * _BORDER, width + 2 * _BORDER)
    )
    picture[:, _BORDER:-_BORDER, _BORDER:-_BORDER] = image
    return picture
