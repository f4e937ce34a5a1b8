"""Evaluation of a generator: how well it predicts the indices of a set, and the images that it generates."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float64, UInt8
from torch import Tensor

from vq import distributed
from vq.data import ImageLoader, TokenLoader
from vq.engine.evaluation.base import (
    Evaluation,
    OnBatch,
    Scores,
    Stamps,
    check_pictures,
    check_views,
    directions_of,
    ignore,
    names_on_all_ranks,
    scores_of,
)
from vq.engine.evaluation.sampling import generate_images
from vq.engine.steps.generator import tokens_of
from vq.errors import ConfigError
from vq.generators import Generator
from vq.generators.sampling import sampler_of
from vq.layers.modes import evaluating
from vq.metrics import Metric, SetMetric, share_features
from vq.ops.images import as_rgb, checked_rgb, grid, to_signed_unit, to_uint8
from vq.ops.keyed import stable_hash
from vq.registry import ENGINES
from vq.tokenizers import Tokenizer


@ENGINES.register_module()
class ProposalEvaluator:
    """Scores a generator on the indices of a set; the scores do not depend on the number of ranks.

    `loss` is the mean cross-entropy per index, in nats; `loss_per_position` is the sum of those of a position's
    indices; `token_perplexity` is the exponential of `loss`; `token_accuracy` is the share of indices that were the
    most likely ones. All are those of the conditional model without guidance,
    which is for sampling only. For a `MaskedGenerator` they are means over all masked indices of the set.

    Args:
        tokenizer: Decodes indices; it also encodes the images if the set holds images.
        sampling: Arguments of `Generator.generate`: guidance, temperature, top_k, top_p.
        metrics: Scores of the set of generated images, such as an `FIDMetric` with a reference. A metric without a
            reference of its own compares with the real images of the set, which must then hold images, not tokens.
            Metrics that compare an image with its reconstruction (PSNR, LPIPS, ...) are refused: a generated image
            has no original.
        num_generated: Number of images to generate for the metrics, one for each of the first labels of the set.
        every: Steps between validations during training; the last step is always validated.
        num_grid_images: Number of columns of the picture.
        seed: Base seed of the generated images.
        rgb: The channels that pictures show as red, green and blue; by default as in `vq.ops.images.preview`.

    Raises:
        ValueError: If `every` or `num_grid_images` is below 1, `rgb` is invalid, only one of `metrics` and
            `num_generated` is given, a metric scores reconstructions, or a setting of `sampling` is out of range.
    """

    def __init__(
        self,
        *,
        tokenizer: Tokenizer,
        sampling: Mapping[str, Any] | None = None,
        metrics: Sequence[Metric] = (),
        num_generated: int = 0,
        every: int = 1000,
        num_grid_images: int = 10,
        seed: int = 0,
        rgb: Sequence[int] | None = None,
    ) -> None:
        if every < 1 or num_grid_images < 1:
            raise ValueError(
                f"expected every and num_grid_images of at least 1, got {every} and {num_grid_images}"
            )
        if bool(metrics) != (num_generated > 0):
            raise ValueError(
                f"expected metrics and num_generated together, got {len(metrics)} metrics and "
                f"num_generated={num_generated}"
            )
        for i, metric in enumerate(metrics):
            if not isinstance(metric, SetMetric):
                raise ValueError(
                    f"metrics[{i}]: expected a metric of a set of images (FIDMetric, SpatialFIDMetric, KID, "
                    f"PrecisionRecall, InceptionScore), got {type(metric).__name__}, which scores reconstructions; a "
                    f"generated image has no original to compare it with, so leave it out"
                )
        sampler_of(**(sampling or {}))  # wrong settings are refused before any training
        self.tokenizer, self.sampling = tokenizer, dict(sampling or {})
        self.metrics = [metric for metric in metrics if isinstance(metric, SetMetric)]
        share_features(self.metrics)
        self.num_generated, self.every, self.seed = num_generated, every, seed
        self.num_grid_images, self.rgb = num_grid_images, checked_rgb("ProposalEvaluator", rgb)

    @torch.no_grad()
    def evaluate(
        self,
        model: Generator,
        loader: Any,
        *,
        on_batch: OnBatch = ignore,
        on_progress: Callable[[int], None] = ignore,
    ) -> Evaluation:
        """Predicts every index of the set once, in eval mode; then generates the images that the metrics score.

        Args:
            model: Its mode is restored afterwards.
            loader: Yields this rank's share of the set.
            on_batch: Not called: a generator reconstructs nothing.
            on_progress: Receives the number of samples that this rank has just finished.
        """
        device = next(model.parameters()).device
        self._check_set(loader)
        for metric in self.metrics:
            metric.to(device).reset()
        sums = torch.zeros(4, dtype=torch.float64, device=device)
        undecodable: list[str] = []
        labels: list[Tensor] = [torch.zeros(0).long()]
        with evaluating(model):
            for batch in loader.pass_batches():
                undecodable += batch.get("undecodable", [])
                if not batch["key"]:
                    continue
                sums += self._sums(model, batch, device)
                labels.append(batch["label"].cpu())
                self._show_real(batch, device)
                on_progress(len(batch["label"]))
            num_samples, num_scored, nats, right = distributed.all_reduce_sum(sums).tolist()
            scores, stamps = self._generated_scores(model, torch.cat(labels))
        loss = nats / max(num_scored, 1)
        own = {
            "loss": loss,
            "loss_per_position": loss * model.num_indices,
            "token_perplexity": math.exp(min(loss, 700)),
            "token_accuracy": right / max(num_scored, 1),
        }
        return Evaluation(
            scores=own | scores,
            num_images=int(num_samples),
            undecodable=names_on_all_ranks(undecodable),
            stamps=stamps,
        )

    def _sums(self, model: Generator, batch: Any, device: torch.device) -> Float64[Tensor, "4"]:
        """Over a batch: its samples, the indices that were scored, their cross-entropy, and how many were right."""
        indices, label = tokens_of(batch, self.tokenizer, device)
        output = model(indices, label)
        count = output.num_scored.double()
        per_index = [count.new_ones(()), output.loss.double(), output.accuracy.double()]
        return torch.stack([count.new_tensor(len(label)), *(value * count for value in per_index)])

    @torch.no_grad()
    def check(self, model: Generator, loader: Any) -> None:
        """Finds out from the first batch, before training, whether the set and the metrics fit the generator.

        Args:
            model: Neither its mode nor its state is changed.
            loader: Its first batch is read.

        Raises:
            ConfigError: If the model cannot take the batch, a metric cannot take a generated image or needs real
                images although the set holds tokens, or the set has fewer samples than images are to be generated.
            UndecodableSetError: If too many images of the batch are broken.
        """
        self._check_set(loader)
        check_pictures(self.rgb, self.tokenizer.image_channels)
        for i, metric in enumerate(self.metrics):
            check_views(f"evaluator.metrics[{i}]", metric, self.tokenizer.image_channels)
        device = next(model.parameters()).device
        batch = next(iter(loader.pass_batches()), None)
        if batch is None or not batch["key"]:
            return
        try:
            with evaluating(model):
                self._try(model, batch, device)
        except (ValueError, RuntimeError, TypeError) as error:
            raise ConfigError(f"evaluator: does not fit val_data: {error}") from error

    def _try(self, model: Generator, batch: Any, device: torch.device) -> None:
        """Predicts the indices of a batch, and gives one generated image to the metrics."""
        model(*tokens_of(batch, self.tokenizer, device))
        if not self.metrics:
            return
        made = generate_images(
            model, self.tokenizer, batch["label"][:1].cpu(), torch.zeros(1).long(), sampling=self.sampling
        )
        image = to_signed_unit(made.to(device))
        for metric in self.metrics:
            metric.to(device).reset()
            metric.update(image)
        self._show_real(batch, device)
        for metric in self.metrics:
            metric.reset()

    def directions(self) -> dict[str, bool]:
        """Whether a larger value is better, for each score by which generators can be ranked."""
        own = {
            "loss": False,
            "loss_per_position": False,
            "token_perplexity": False,
            "token_accuracy": True,
        }
        return own | directions_of(self.metrics)

    def _check_set(self, loader: Any) -> None:
        """Refuses a set without images if a metric needs them, and one with too few labels."""
        comparing = [type(metric).__name__ for metric in self.metrics if metric.needs_real]
        if comparing and not isinstance(loader, ImageLoader):
            raise ConfigError(
                f"evaluator.metrics: {comparing[0]} compares generated images with real ones, but val_data holds "
                f"tokens; give it reference=NAME if it takes one (FIDMetric, SpatialFIDMetric: vq fid "
                f"makes it), or make val_data an ImageLoader"
            )
        if isinstance(loader, (ImageLoader, TokenLoader)) and self.num_generated > loader.num_samples:
            raise ConfigError(
                f"evaluator.num_generated: expected at most the {loader.num_samples} samples of val_data, whose "
                f"labels are taken, got {self.num_generated}"
            )

    def _show_real(self, batch: Any, device: torch.device) -> None:
        """Gives the real images of a batch to the metrics that compare with them."""
        comparing = [metric for metric in self.metrics if metric.needs_real]
        if comparing:
            image = to_signed_unit(batch["image"].to(device))
            for metric in comparing:
                metric.update_real(image)

    def _generated_scores(
        self, model: Generator, labels: Tensor, batch_size: int = 32
    ) -> tuple[Scores, Stamps]:
        """Generates an image for each of the first labels of the set; the scores of these images, and their stamps."""
        if not self.num_generated:
            return {}, {}
        device = next(model.parameters()).device
        # The labels must not depend on how many ranks share the set.
        all_labels = [label for some in distributed.gather_objects(labels.tolist()) for label in some]
        numbered = list(enumerate(all_labels[: self.num_generated]))
        mine = numbered[distributed.rank() :: distributed.world_size()]
        for start in range(0, len(mine), batch_size):
            batch = mine[start : start + batch_size]
            label = torch.tensor([label for _, label in batch])
            seeds = torch.tensor([stable_hash(self.seed, "evaluation", i) % 2**62 for i, _ in batch])
            made = generate_images(model, self.tokenizer, label, seeds, sampling=self.sampling)
            image = to_signed_unit(made.to(device))
            for metric in self.metrics:
                metric.update(image)
        scores, stamps = scores_of(self.metrics)
        return scores, {name: {**stamps.get(name, {}), "num_generated": len(numbered)} for name in scores}

    @torch.no_grad()
    def picture(self, model: Generator, loader: Any) -> UInt8[Tensor, "3 height width"]:
        """Draws three rows of images, with one column per sample.

        The first row decodes the indices of the samples; the second row keeps the first half of them and generates the
        rest; the third row generates all of them from the class.
        """
        device = next(model.parameters()).device
        with evaluating(model):
            indices, label = tokens_of(loader.fixed_batch(self.num_grid_images), self.tokenizer, device)
            seeds = torch.tensor([stable_hash(self.seed, "picture", i) % 2**62 for i in range(len(label))])
            flat = indices.flatten(1, len(model.grid))
            half = flat[:, : flat.shape[1] // 2]
            rows = [to_uint8(self.tokenizer.decode(indices).float()).cpu()]
            rows += [
                generate_images(model, self.tokenizer, label, seeds, sampling=self.sampling, prefix=prefix)
                for prefix in (half, None)
            ]
        return grid(as_rgb(torch.cat(rows), self.rgb), columns=len(label))
