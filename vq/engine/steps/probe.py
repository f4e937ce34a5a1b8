"""Trains a linear probe to classify images by the features that a frozen tokenizer gives them."""

from collections.abc import Mapping, Sequence
from typing import Any, Unpack

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from vq.engine.steps.base import TrainStep
from vq.engine.steps.checks import check_not_sharded
from vq.engine.steps.micro_batches import shares_of
from vq.engine.steps.optimization import Optimization, OptimizationArguments
from vq.ops.images import encodable
from vq.ops.numerics.precision import at_least_float32
from vq.probes import LinearProbe
from vq.registry import STEPS


@STEPS.register_module()
class ProbeStep(TrainStep):
    """Lowers the cross-entropy of a linear probe.

    A batch holds images, or indices from a token store. The features of all micro-batches are classified together, so
    that `accumulate` changes neither the statistics of the batch normalization nor the gradient.

    Args:
        probe: Trained; its features are fixed.
        **optimization: `optimizer`, `schedule`, `max_gradient_norm`, `weight_ema`, `accumulate`, `autocast`; see
            `OptimizationArguments`. The features do not depend on `autocast`.
    """

    def __init__(self, *, probe: LinearProbe, **optimization: Unpack[OptimizationArguments]) -> None:
        check_not_sharded(optimization.get("strategy"), "ProbeStep")
        self.probe = probe
        self.optimization = Optimization(probe, list(probe.parameters()), **optimization)

    def __call__(self, batches: Sequence[Mapping[str, Any]], step: int) -> dict[str, Float[Tensor, ""]]:
        """Takes one optimizer step of the probe."""
        self.optimization.prepare(step)
        pairs = [features_of(batch, self.probe, self.device) for batch in batches]
        features, label = (torch.cat(part) for part in zip(*pairs, strict=True))
        (share,) = shares_of([len(label)], features)
        with self.optimization.networks_autocast():
            logits = at_least_float32(self.optimization.forward(features))
        loss = share.local * F.cross_entropy(logits, label)
        self.optimization.backward(loss)
        accuracy = share.local * (logits.detach().argmax(dim=1) == label).to(logits.dtype).mean()
        return {"loss/total": loss.detach(), "accuracy": accuracy, **self.optimization.step()}


def features_of(
    batch: Mapping[str, Any], probe: LinearProbe, device: torch.device
) -> tuple[Float[Tensor, "batch dim"], Int64[Tensor, "batch"]]:
    """The features and the labels of a batch of images, or of indices from a token store."""
    label = batch["label"].to(device, non_blocking=True)
    if "indices" in batch:
        return probe.features.of_indices(batch["indices"].to(device, non_blocking=True)), label
    return probe.features(encodable(batch["image"].to(device, non_blocking=True))), label
