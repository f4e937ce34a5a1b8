"""Validation of a generator: how well it proposes the indices of a set, and what it makes by itself."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import UInt8
from torch import Tensor, nn

from vq import distributed
from vq.data import ImageLoader, TokenLoader
from vq.engine.evaluation.base import Evaluation
from vq.engine.evaluation.sampling import generate_images
from vq.engine.steps.generator import tokens_of
from vq.errors import ConfigError
from vq.generators import Generator
from vq.generators.sampling import sampler_of
from vq.layers.modes import evaluating
from vq.metrics import SetMetric, share_features
from vq.ops.images import grid, to_signed_unit, to_uint8
from vq.ops.keyed import stable_hash
from vq.registry import ENGINES


@ENGINES.register_module()
class ProposalEvaluator:
    """Scores a generator on the indices of a set; the same numbers on 1 and N ranks.

    `loss` is the mean cross-entropy in nats of an index, `token_perplexity` its exponential,
    `token_accuracy` the share of indices that were the likeliest. They are of the plain conditional model:
    guidance is for sampling alone. Of a `MaskedGenerator` they are means over all masked indices of the set.

    Args:
        tokenizer: Decodes indices; it also makes them where the set holds images.
        sampling: Arguments of `Generator.generate`: guidance, temperature, top_k, top_p.
        metrics: Scores of the set of generated images, such as an `FIDMetric` with a reference. One without a
            reference of its own compares with the real images of the set, which must then hold images, not tokens.
            Those that compare an image with its reconstruction (PSNR, LPIPS, ...) are refused: a generated image
            has no original.
        num_generated: How many images the metrics see, one for each of the first labels of the set.
        every: Steps between validations during training; the last step is always validated.
        num_grid_images: How many columns the picture has.
        seed: Of what is generated.

    Raises:
        ValueError: If `every` or `num_grid_images` is below 1, there are metrics and nothing for them to see, a metric
            is one of reconstructions, or a setting of `sampling` is out of range.
    """

    def __init__(
        self,
        *,
        tokenizer: nn.Module,
        sampling: Mapping[str, Any] | None = None,
        metrics: Sequence[SetMetric] = (),
        num_generated: int = 0,
        every: int = 1000,
        num_grid_images: int = 10,
        seed: int = 0,
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
                    f"metrics[{i}]: expected a metric of a set of pictures (FIDMetric, SpatialFIDMetric, KID, "
                    f"PrecisionRecall, InceptionScore), got {type(metric).__name__}, which scores reconstructions; a "
                    f"generated image has no original to compare it with, so leave it out"
                )
        sampler_of(**(sampling or {}))  # wrong settings are refused before any training
        self.tokenizer, self.sampling = tokenizer, dict(sampling or {})
        self.metrics = list(metrics)
        share_features(self.metrics)
        self.num_generated, self.every, self.seed = num_generated, every, seed
        self.num_grid_images = num_grid_images

    @torch.no_grad()
    def evaluate(
        self,
        model: Generator,
        loader: Any,
        *,
        on_batch: Callable[[Any, Tensor, Tensor], None] | None = None,
        on_progress: Callable[[int], None] | None = None,
    ) -> Evaluation:
        """Proposes every index of the set once, in eval mode; then generates what the metrics want to see.

        Args:
            model: Its mode is restored afterwards.
            loader: Gives this rank's share.
            on_batch: Not called: a generator reconstructs nothing.
            on_progress: Gets the number of samples that this rank has just done.
        """
        device = next(model.parameters()).device
        self._refuse_misfit(loader)
        for metric in self.metrics:
            metric.to(device).reset()
        # samples, scored indices, nats, right ones
        sums = torch.zeros(4, dtype=torch.float64, device=device)
        undecodable: list[str] = []
        labels: list[Tensor] = []
        with evaluating(model):
            for batch in loader.pass_batches():
                undecodable += batch.get("undecodable", [])
                if not batch["key"]:
                    continue
                indices, label = tokens_of(batch, self.tokenizer, device)
                output = model(indices, label)
                count = output.num_scored.double()
                sums += torch.stack([count.new_tensor(len(label)), count,
                                     output.loss.double() * count, output.accuracy.double() * count])  # fmt: skip
                labels.append(batch["label"].cpu())
                self._show_real(batch, device)
                if on_progress is not None:
                    on_progress(len(label))
            total = distributed.all_reduce_sum(sums).tolist()
            scores, stamps = self._generated_scores(
                model, torch.cat(labels) if labels else torch.zeros(0).long()
            )
        loss = total[2] / max(total[1], 1)
        everywhere = distributed.gather_objects(undecodable)
        return Evaluation(
            scores={
                "loss": loss,
                "token_perplexity": math.exp(min(loss, 700)),
                "token_accuracy": total[3] / max(total[1], 1),
                **scores,
            },
            num_images=int(total[0]),
            undecodable=sorted({name for names in everywhere for name in names}),
            stamps=stamps,
        )

    @torch.no_grad()
    def check(self, model: Generator, loader: Any) -> None:
        """Finds out with the first batch, before training, whether the set and the metrics fit the generator.

        Args:
            model: Neither its mode nor its state is changed.
            loader: Its first batch is read.

        Raises:
            ConfigError: If the batch cannot be proposed, a metric cannot take a generated image, one needs real
                images and the set holds tokens, or there are fewer samples than images to generate.
            UndecodableSetError: If too many images of the batch are broken.
        """
        self._refuse_misfit(loader)
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
        """Proposes a batch, and shows the metrics one generated image."""
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

    def _refuse_misfit(self, loader: Any) -> None:
        """Refuses a set without images where a metric needs them, and one with too few labels."""
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
    ) -> tuple[dict[str, float], dict[str, dict[str, str | int | None]]]:
        """What the metrics say of generated images, and the stamps of their scores."""
        if not self.num_generated:
            return {}, {}
        device = next(model.parameters()).device
        # Which labels, must not depend on how many ranks share the set.
        everywhere = [label for some in distributed.gather_objects(labels.tolist()) for label in some]
        numbered = list(enumerate(everywhere[: self.num_generated]))[
            distributed.rank() :: distributed.world_size()
        ]
        for start in range(0, len(numbered), batch_size):
            some = numbered[start : start + batch_size]
            label = torch.tensor([label for _, label in some])
            seeds = torch.tensor([stable_hash(self.seed, "evaluation", i) % 2**62 for i, _ in some])
            made = generate_images(model, self.tokenizer, label, seeds, sampling=self.sampling)
            image = to_signed_unit(made.to(device))
            for metric in self.metrics:
                metric.update(image)
        scores: dict[str, float] = {}
        stamps: dict[str, dict[str, str | int | None]] = {}
        for metric in self.metrics:
            metric.sync()
            found = metric.compute()
            scores |= found
            stamp = {**metric.stamp(), "num_generated": int(metric.images)}
            stamps |= dict.fromkeys(found, stamp)
        return scores, stamps

    @torch.no_grad()
    def picture(self, model: Generator, loader: Any) -> UInt8[Tensor, "3 height width"]:
        """Decodes three rows of images for a few samples.

        The first row decodes their indices; the second, their first half of the indices and a generated second half;
        the third, indices that are generated from the class alone.
        """
        device = next(model.parameters()).device
        with evaluating(model):
            indices, label = tokens_of(loader.fixed_batch(self.num_grid_images), self.tokenizer, device)
            seeds = torch.tensor([stable_hash(self.seed, "picture", i) % 2**62 for i in range(len(label))])
            reconstructed = to_uint8(self.tokenizer.decode(indices).float()).cpu()  # type: ignore[operator]
            flat = indices.flatten(1, len(model.grid))
            half = flat[:, : flat.shape[1] // 2]
            rows = [reconstructed]
            for prefix in (half, None):
                rows.append(
                    generate_images(
                        model, self.tokenizer, label, seeds, sampling=self.sampling, prefix=prefix
                    )
                )
        return grid(torch.cat(rows), columns=len(label))
