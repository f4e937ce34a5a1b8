"""Evaluation of a tokenizer: one pass over a set of images gives scores, and a grid of pictures."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Shaped, UInt8
from torch import Tensor
from torch.nn import functional as F

from vq import distributed
from vq.data import Batch, ImageLoader
from vq.engine.evaluation.base import (
    Evaluation,
    OnBatch,
    check_pictures,
    check_views,
    directions_of,
    ignore,
    names_on_all_ranks,
    scores_of,
)
from vq.engine.evaluation.pictures import index_picture
from vq.errors import ConfigError
from vq.layers.modes import evaluating
from vq.metrics import Metric, needs_reconstruction, share_features, update_metrics
from vq.ops.images import as_rgb, checked_rgb, grid, to_signed_unit, to_uint8
from vq.registry import ENGINES
from vq.tokenizers import Tokenizer


@ENGINES.register_module()
class Evaluator:
    """Scores a tokenizer on a set of images; the scores do not depend on the number of ranks.

    A tokenizer without an image decoder is scored by metrics of its codes and vectors, and its pictures show index maps
    in the place of reconstructions.

    Args:
        metrics: Updated with every batch, summed over ranks at the end. Those with equal feature networks
            share one, so that each batch passes through it once.
        every: Steps between validations during training; the last step is always validated.
        num_grid_images: How many fixed images the grid of pictures shows.
        rgb: The channels that pictures show as red, green and blue; by default as in `vq.ops.images.preview`.

    Raises:
        ValueError: If `every` or `num_grid_images` is below 1, or `rgb` is invalid.
    """

    def __init__(
        self,
        *,
        metrics: Sequence[Metric],
        every: int = 1000,
        num_grid_images: int = 16,
        rgb: Sequence[int] | None = None,
    ) -> None:
        if every < 1 or num_grid_images < 1:
            raise ValueError(
                f"expected every and num_grid_images of at least 1, got {every} and {num_grid_images}"
            )
        self.metrics, self.every, self.num_grid_images = list(metrics), every, num_grid_images
        self.rgb = checked_rgb("Evaluator", rgb)
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
        """Tokenizes every image once, in eval mode.

        Args:
            model: Its mode is restored afterwards; its state is not changed.
            loader: Yields this rank's share of the set.
            on_batch: Receives each batch, its uint8 reconstructions (None without an image decoder) and its indices.
            on_progress: Receives the number of images that this rank has just finished.
        """
        for metric in self.metrics:
            metric.to(model.device).reset()
        undecodable: list[str] = []
        num_images = 0
        with evaluating(model):
            for batch in loader.pass_batches():
                undecodable += batch["undecodable"]
                if not batch["key"]:
                    continue
                values = computed(model, batch)
                update_metrics(self.metrics, **values)
                reconstruction = values["reconstruction"]
                on_batch(
                    batch, None if reconstruction is None else to_uint8(reconstruction), values["indices"]
                )
                on_progress(len(batch["key"]))
                num_images += len(batch["key"])
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
            ConfigError: If a metric is for other codes, scores reconstructions that the tokenizer does not have, has an
                RGB network and no view of the images, or cannot take the batch; or the images have no channels `rgb`.
            UndecodableSetError: If too many images of the batch are broken.
        """
        check_pictures(self.rgb, model.image_channels)
        for i, metric in enumerate(self.metrics):
            _check_fit(f"evaluator.metrics[{i}]", metric, model)
        batch = next(iter(loader.pass_batches()), None)
        if batch is None or not batch["key"]:
            return
        with torch.no_grad(), evaluating(model):
            values = computed(model, batch)
            for i, metric in enumerate(self.metrics):
                metric.to(model.device).reset()
                try:
                    update_metrics([metric], **values)
                except (ValueError, RuntimeError, TypeError) as error:
                    raise ConfigError(f"evaluator.metrics[{i}]: does not fit val_data: {error}") from error
                finally:
                    metric.reset()

    def directions(self) -> dict[str, bool]:
        """Whether a larger value is better, for each score by which tokenizers can be ranked."""
        return directions_of(self.metrics)

    def picture(self, model: Tokenizer, loader: ImageLoader) -> UInt8[Tensor, "3 height width"]:
        """Draws a few images of the set above their reconstructions or index maps, the same images each time."""
        return draw_pictures(model, loader.fixed_batch(self.num_grid_images)["image"], rgb=self.rgb)


def computed(tokenizer: Tokenizer, batch: Batch) -> dict[str, Any]:
    """What `update_metrics` needs of a batch, on the tokenizer's device; reconstructions are clamped to [-1, 1]."""
    image = to_signed_unit(batch["image"].to(tokenizer.device))
    output = tokenizer(image)
    decoded, has_images = output.reconstruction, tokenizer.has_image_decoder
    return {
        "image": image,
        "reconstruction": decoded.float().clamp(-1, 1) if has_images else None,
        "features": None if has_images else decoded,
        "latent": output.latent,
        "quantized": output.quantize.quantized,
        "indices": output.quantize.indices,
    }


def _check_fit(place: str, metric: Metric, model: Tokenizer) -> None:
    """Raises if a metric is for other codes than the tokenizer's, or for images that it does not reconstruct."""
    kind = type(metric).__name__
    if needs_reconstruction(metric) and not model.has_image_decoder:
        raise ConfigError(
            f"{place}: {kind} scores reconstructed images, but {type(model).__name__} has no image decoder; leave it "
            f"out and use CodebookUsage, Perplexity, QuantizationError or TeacherCosine, or train a decoder with "
            f"configs/decoder/vqgan.py"
        )
    check_views(place, metric, model.image_channels)
    quantizer = model.quantizer
    for name, wanted in (("codebook_size", model.codebook_size), ("codebook_dim", quantizer.codebook_dim)):
        if (found := getattr(metric, name, wanted)) != wanted:
            raise ConfigError(
                f"{place}: {kind} has {name} {found}, the tokenizer {wanted}; set {place}.{name} to {wanted}"
            )


@torch.no_grad()
def draw_pictures(
    tokenizer: Tokenizer,
    image: Shaped[Tensor, "batch channels h w"],
    columns: int = 8,
    rgb: Sequence[int] | None = None,
) -> UInt8[Tensor, "3 height width"]:
    """Draws rows of images, each above the row of their reconstructions, or of their index maps without a decoder.

    Args:
        tokenizer: Its mode is restored afterwards.
        image: Pixels in 0..255, uint8 or float32.
        columns: The number of images in a row.
        rgb: The channels to show as red, green and blue; by default as in `vq.ops.images.preview`.
    """
    with evaluating(tokenizer):
        seen = to_signed_unit(image.to(tokenizer.device))
        if tokenizer.has_image_decoder:
            below = as_rgb(to_uint8(tokenizer(seen).reconstruction.float()).cpu(), rgb)
        else:
            below = _index_maps(tokenizer, seen)
    image = as_rgb(image, rgb)
    rows = [
        row
        for start in range(0, len(image), columns)
        for row in (image[start : start + columns], below[start : start + columns])
    ]
    columns = min(columns, len(image))
    blank = torch.full_like(image[:1], 255)
    padded = [torch.cat([row, blank.expand(columns - len(row), -1, -1, -1)]) for row in rows]
    return grid(torch.cat(padded), columns=columns)


def _index_maps(tokenizer: Tokenizer, image: Tensor) -> UInt8[Tensor, "batch 3 h w"]:
    """The index maps of images in their size; the maps of stacked quantizers share the width."""
    height, width = image.shape[2:]
    pictures = [
        index_picture(indices.cpu(), tokenizer.codebook_size, height=height, width=width)
        for indices in tokenizer.encode_images(image)
    ]
    return F.interpolate(torch.stack(pictures).float(), size=(height, width), mode="nearest").to(torch.uint8)
