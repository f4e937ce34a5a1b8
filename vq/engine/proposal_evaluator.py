"""Validation of a generator: how well it proposes the indices of a set, and what it makes by itself."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import UInt8
from torch import Tensor, nn

from vq import distributed
from vq.engine.evaluator import Evaluation
from vq.engine.generation import generate_images
from vq.engine.proposal import tokens_of
from vq.generators import Generator
from vq.metrics import Metric
from vq.ops.images import grid, to_signed_unit, to_uint8
from vq.ops.keyed import stable_hash
from vq.registry import ENGINES, ConfigError


@ENGINES.register_module()
class ProposalEvaluator:
    """Scores a generator on the indices of a set; the same numbers on 1 and N ranks.

    `loss` is the mean cross-entropy in nats of an index, `token_perplexity` its exponential,
    `token_accuracy` the share of indices that were the likeliest. They are of the plain conditional model:
    guidance is for sampling alone. Of a `MaskedGenerator` they are means over all masked indices of the set.

    Args:
        tokenizer: Decodes indices; it also makes them where the set holds images.
        sampling: Arguments of `Generator.generate`: guidance, temperature, top_k, top_p.
        metrics: Scores of generated images, such as an `FIDMetric` with a reference.
        num_generated: How many images the metrics see, one for each of the first labels of the set.
        every: Steps between validations during training; the last step is always validated.
        num_grid_images: How many columns the picture has.
        seed: Of what is generated.

    Raises:
        ValueError: If `every` is below 1, or there are metrics and nothing for them to see.
    """

    def __init__(
        self,
        *,
        tokenizer: nn.Module,
        sampling: Mapping[str, Any] | None = None,
        metrics: Sequence[Metric] = (),
        num_generated: int = 0,
        every: int = 1000,
        num_grid_images: int = 10,
        seed: int = 0,
    ) -> None:
        if every < 1:
            raise ValueError(f"every: expected at least 1 step, got {every}")
        if bool(metrics) != (num_generated > 0):
            raise ValueError(
                f"expected metrics and num_generated together, got {len(metrics)} metrics and "
                f"num_generated={num_generated}"
            )
        self.tokenizer, self.sampling, self.metrics = tokenizer, dict(sampling or {}), list(metrics)
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
        was_training = model.training
        model.eval()
        # samples, scored indices, nats, right ones
        sums = torch.zeros(4, dtype=torch.float64, device=device)
        undecodable: list[str] = []
        labels: list[Tensor] = []
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
            if on_progress is not None:
                on_progress(len(label))
        total = distributed.all_reduce_sum(sums).tolist()
        scores, stamps = self._generated_scores(model, torch.cat(labels) if labels else torch.zeros(0).long())
        model.train(was_training)
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
            ConfigError: If the batch cannot be proposed, or a metric cannot take a generated image.
            UndecodableSetError: If too many images of the batch are broken.
        """
        device = next(model.parameters()).device
        batch = next(iter(loader.pass_batches()), None)
        if batch is None or not batch["key"]:
            return
        was_training = model.training
        model.eval()
        try:
            model(*tokens_of(batch, self.tokenizer, device))
            if not self.metrics:
                return
            made = generate_images(
                model, self.tokenizer, batch["label"][:1].cpu(), torch.zeros(1).long(), sampling=self.sampling
            )
            image = to_signed_unit(made.to(device))
            blank = torch.zeros(len(image), 1, dtype=torch.int64, device=device)
            for metric in self.metrics:
                metric.to(device).reset()
                metric.update(image=image, reconstruction=image, indices=blank)
                metric.reset()
        except (ValueError, RuntimeError, TypeError) as error:
            raise ConfigError(f"evaluator: does not fit val_data: {error}") from error
        finally:
            model.train(was_training)

    def _generated_scores(
        self, model: Generator, labels: Tensor, batch_size: int = 32
    ) -> tuple[dict[str, float], dict[str, dict[str, str | int | None]]]:
        """What the metrics say of generated images, and the stamps of their scores."""
        if not self.num_generated:
            return {}, {}
        device = next(model.parameters()).device
        for metric in self.metrics:
            metric.to(device).reset()
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
            blank = torch.zeros(len(label), 1, dtype=torch.int64, device=device)
            for metric in self.metrics:
                metric.update(image=image, reconstruction=image, indices=blank)
        scores: dict[str, float] = {}
        stamps: dict[str, dict[str, str | int | None]] = {}
        for metric in self.metrics:
            metric.sync()
            found = metric.compute()
            scores |= found
            stamp = {**metric.stamp(), "num_generated": self.num_generated}
            stamps |= dict.fromkeys(found, stamp)
        return scores, stamps

    @torch.no_grad()
    def picture(self, model: Generator, loader: Any) -> UInt8[Tensor, "3 height width"]:
        """Three rows: what the tokenizer makes of a few samples, the same continued from their first half, and
        generated from nothing but their class."""
        device = next(model.parameters()).device
        was_training = model.training
        model.eval()
        indices, label = tokens_of(loader.fixed_batch(self.num_grid_images), self.tokenizer, device)
        seeds = torch.tensor([stable_hash(self.seed, "picture", i) % 2**62 for i in range(len(label))])
        reconstructed = to_uint8(self.tokenizer.decode(indices).float()).cpu()  # type: ignore[operator]
        flat = indices.flatten(1, len(model.grid))
        half = flat[:, : flat.shape[1] // 2]
        rows = [reconstructed]
        for prefix in (half, None):
            rows.append(
                generate_images(model, self.tokenizer, label, seeds, sampling=self.sampling, prefix=prefix)
            )
        model.train(was_training)
        return grid(torch.cat(rows), columns=len(label))
