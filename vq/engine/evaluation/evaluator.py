"""One pass over a validation set: images in, a table of scores and a grid of pictures out."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import UInt8
from torch import Tensor

from vq import distributed
from vq.data import Batch, ImageLoader
from vq.engine.evaluation.base import Evaluation
from vq.errors import ConfigError
from vq.layers.modes import evaluating
from vq.metrics import Metric, share_features, update_reconstructions
from vq.ops.images import grid, to_signed_unit, to_uint8
from vq.registry import ENGINES
from vq.tokenizers import Tokenizer


@ENGINES.register_module()
class Evaluator:
    """Scores a tokenizer's reconstructions of a set; the same numbers on 1 and N ranks.

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
        on_batch: Callable[[Batch, Tensor, Tensor], None] | None = None,
        on_progress: Callable[[int], None] | None = None,
    ) -> Evaluation:
        """Reconstructs every image once, in eval mode.

        Args:
            model: Its mode is restored afterwards; its state is not changed.
            loader: Gives this rank's share.
            on_batch: Gets each batch, its uint8 reconstructions and its indices.
            on_progress: Gets the number of images that this rank has just done.
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
                image = to_signed_unit(batch["image"].to(device))
                output = model(image)
                reconstruction = output.reconstruction.float().clamp(-1, 1)
                update_reconstructions(
                    self.metrics, image=image, reconstruction=reconstruction, indices=output.quantize.indices
                )
                if on_batch is not None:
                    on_batch(batch, to_uint8(reconstruction), output.quantize.indices)
                if on_progress is not None:
                    on_progress(len(image))
                num_images += len(image)
        scores: dict[str, float] = {}
        stamps: dict[str, dict[str, str | int | None]] = {}
        for metric in self.metrics:
            metric.sync()
            found = metric.compute()
            scores |= found
            if stamp := metric.stamp():
                stamps |= dict.fromkeys(found, stamp)
        everywhere = distributed.gather_objects((num_images, undecodable))
        return Evaluation(
            scores=scores,
            num_images=sum(n for n, _ in everywhere),
            undecodable=sorted({name for _, names in everywhere for name in names}),
            stamps=stamps,
        )

    def check(self, model: Tokenizer, loader: ImageLoader) -> None:
        """Finds out with the first batch, before training, whether the set and the metrics fit the tokenizer.

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
            image = to_signed_unit(batch["image"].to(next(model.parameters()).device))
            output = model(image)
            reconstruction = output.reconstruction.float().clamp(-1, 1)
            for i, metric in enumerate(self.metrics):
                metric.to(image.device).reset()
                try:
                    update_reconstructions(
                        [metric], image=image, reconstruction=reconstruction, indices=output.quantize.indices
                    )
                except (ValueError, RuntimeError, TypeError) as error:
                    raise ConfigError(f"evaluator.metrics[{i}]: does not fit val_data: {error}") from error
                finally:
                    metric.reset()

    def picture(self, model: Tokenizer, loader: ImageLoader) -> UInt8[Tensor, "3 height width"]:
        """A few fixed images of the set above their reconstructions, the same ones each time."""
        return draw_reconstructions(model, loader.fixed_batch(self.num_grid_images)["image"])


@torch.no_grad()
def draw_reconstructions(
    tokenizer: Tokenizer, image: UInt8[Tensor, "batch 3 h w"], columns: int = 8
) -> UInt8[Tensor, "3 height width"]:
    """A picture in which each row of originals stands above the row of their reconstructions."""
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
