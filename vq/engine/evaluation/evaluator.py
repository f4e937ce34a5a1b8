"""Evaluation of a tokenizer: one pass over a set of images gives scores, and a grid of reconstructions."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from vq import distributed
from vq.data import Batch, ImageLoader
from vq.engine.evaluation.base import Evaluation, OnBatch, ignore, names_on_all_ranks, scores_of
from vq.errors import ConfigError
from vq.layers.modes import evaluating
from vq.metrics import Metric, share_features, update_reconstructions
from vq.ops.images import grid, to_signed_unit, to_uint8
from vq.registry import ENGINES
from vq.tokenizers import Tokenizer


@ENGINES.register_module()
class Evaluator:
    """Scores a tokenizer's reconstructions of a set; the scores do not depend on the number of ranks.

    Args:
        metrics: Updated with every batch, summed over ranks at the end. Those with equal feature networks
            share one, so that each batch passes through it once.
        every: Steps between validations during training; the last step is always validated.
        num_grid_images: How many fixed images the reconstruction grid shows.

    Raises:
        ValueError: If `every` or `num_grid_images` is below 1.
    """

    def __init__(self, *, metrics: Sequence[Metric], every: int = 1000, num_grid_images: int = 16) -> None:
        if every < 1 or num_grid_images < 1:
            raise ValueError(
                f"expected every and num_grid_images of at least 1, got {every} and {num_grid_images}"
            )
        self.metrics, self.every, self.num_grid_images = list(metrics), every, num_grid_images
        share_features(self.metrics)

    @torch.no_grad()
    def evaluate(
        self,
        model: Tokenizer,
        loader: ImageLoader,
        *,
        on_batch: OnBatch = ignore,
        on_progress: Callable[[int], None] = ignore,
    ) -> Evaluation:
        """Reconstructs every image once, in eval mode.

        Args:
            model: Its mode is restored afterwards; its state is not changed.
            loader: Yields this rank's share of the set.
            on_batch: Receives each batch, its uint8 reconstructions and its indices.
            on_progress: Receives the number of images that this rank has just finished.
        """
        device = next(model.parameters()).device
        for metric in self.metrics:
            metric.to(device).reset()
        undecodable: list[str] = []
        num_images = 0
        with evaluating(model):
            for batch in loader.pass_batches():
                undecodable += batch["undecodable"]
                if not batch["key"]:
                    continue
                image, reconstruction, indices = reconstructed(model, batch)
                update_reconstructions(
                    self.metrics, image=image, reconstruction=reconstruction, indices=indices
                )
                on_batch(batch, to_uint8(reconstruction), indices)
                on_progress(len(image))
                num_images += len(image)
        scores, stamps = scores_of(self.metrics)
        return Evaluation(
            scores=scores,
            num_images=sum(distributed.gather_objects(num_images)),
            undecodable=names_on_all_ranks(undecodable),
            stamps=stamps,
        )

    def check(self, model: Tokenizer, loader: ImageLoader) -> None:
        """Finds out from the first batch, before training, whether the set and the metrics fit the tokenizer.

        Args:
            model: Neither its mode nor its state is changed.
            loader: Its first batch is read, by its workers.

        Raises:
            ConfigError: If a metric counts another number of codes, or cannot take the batch.
            UndecodableSetError: If too many images of the batch are broken.
        """
        for i, metric in enumerate(self.metrics):
            size = getattr(metric, "codebook_size", model.codebook_size)
            if size != model.codebook_size:
                raise ConfigError(
                    f"evaluator.metrics[{i}]: {type(metric).__name__} has codebook_size {size}, the tokenizer "
                    f"{model.codebook_size}; set evaluator.metrics[{i}].codebook_size to {model.codebook_size}"
                )
        batch = next(iter(loader.pass_batches()), None)
        if batch is None or not batch["key"]:
            return
        with torch.no_grad(), evaluating(model):
            image, reconstruction, indices = reconstructed(model, batch)
            for i, metric in enumerate(self.metrics):
                metric.to(image.device).reset()
                try:
                    update_reconstructions(
                        [metric], image=image, reconstruction=reconstruction, indices=indices
                    )
                except (ValueError, RuntimeError, TypeError) as error:
                    raise ConfigError(f"evaluator.metrics[{i}]: does not fit val_data: {error}") from error
                finally:
                    metric.reset()

    def picture(self, model: Tokenizer, loader: ImageLoader) -> UInt8[Tensor, "3 height width"]:
        """Draws a few images of the set above their reconstructions, the same images each time."""
        return draw_reconstructions(model, loader.fixed_batch(self.num_grid_images)["image"])


def reconstructed(
    tokenizer: Tokenizer, batch: Batch
) -> tuple[
    Float[Tensor, "batch 3 height width"], Float[Tensor, "batch 3 height width"], Int[Tensor, "batch *index"]
]:
    """The images of a batch and their reconstructions in [-1, 1], and the indices, on the tokenizer's device."""
    image = to_signed_unit(batch["image"].to(next(tokenizer.parameters()).device))
    output = tokenizer(image)
    return image, output.reconstruction.float().clamp(-1, 1), output.quantize.indices


@torch.no_grad()
def draw_reconstructions(
    tokenizer: Tokenizer, image: UInt8[Tensor, "batch 3 h w"], columns: int = 8
) -> UInt8[Tensor, "3 height width"]:
    """Draws rows of images, each above the row of their reconstructions."""
    device = next(tokenizer.parameters()).device
    with evaluating(tokenizer):
        reconstruction = to_uint8(tokenizer(to_signed_unit(image.to(device))).reconstruction.float()).cpu()
    rows = [
        row
        for start in range(0, len(image), columns)
        for row in (image[start : start + columns], reconstruction[start : start + columns])
    ]
    columns = min(columns, len(image))
    blank = torch.full_like(image[:1], 255)
    padded = [torch.cat([row, blank.expand(columns - len(row), -1, -1, -1)]) for row in rows]
    return grid(torch.cat(padded), columns=columns)
