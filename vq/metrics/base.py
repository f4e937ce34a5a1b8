"""The interfaces of metrics: sums over a whole set of images, on all ranks, and the scores computed from them.

There are four kinds, which differ in what they see. A `ReconstructionMetric` compares each image with its own
reconstruction. A `SetMetric` (in `vq.metrics.sets`) scores a set of images as a whole, so that it can also score
generated images, which have no original. A `CodeMetric` counts the codes of images. A `VectorMetric` compares the
vectors of a tokenizer before and after quantization, or the features that it predicts. The last two need no
reconstructed image.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from vq import distributed

Images: TypeAlias = Float[Tensor, "b channels h w"]
"""Images or reconstructions, in [-1, 1], of any number of channels."""

Indices: TypeAlias = Int[Tensor, "b *grid"]
"""Code indices, int64. Those of stacked quantizers have one more axis, which comes last."""


class MetricPart(nn.Module, ABC):
    """A submodule of a metric that keeps state of its own, which the metric resets and synchronizes."""

    @abstractmethod
    def reset(self) -> None:
        """Discards the state."""

    @abstractmethod
    def sync(self) -> None:
        """Combines the state of all ranks. The metric calls it once, on every rank."""


def sum_over_ranks(module: nn.Module) -> None:
    """Replaces the buffers of a module, without those of its submodules, by their sums over all ranks."""
    for buffer in module.buffers(recurse=False):
        buffer.copy_(distributed.all_reduce_sum(buffer))


def set_to_zero(module: nn.Module) -> None:
    """Sets the buffers of a module, without those of its submodules, to zero."""
    for buffer in module.buffers(recurse=False):
        buffer.zero_()


class Metric(nn.Module, ABC):
    """Accumulates sums over a set of images and computes scores from them at the end.

    Call `update` for each batch, `sync` once on every rank, and `compute` where the scores are needed. Each rank
    updates with its own images, of which there may be none. The scores equal those of a single process that saw all
    images.

    A subclass declares its sums with `add_sum`, or keeps them in a `MetricPart`. The sums are float64 or int64 buffers
    outside the state dict. Move a metric with `.to(device)`, but never to another floating-point dtype.
    """

    higher_is_better: ClassVar[bool | None]
    """Whether a larger score is better; None if neither direction is."""

    images: Tensor

    def __init__(self) -> None:
        super().__init__()
        self._sum_names: list[str] = []
        self._is_synced = False
        self.add_sum("images", dtype=torch.int64)

    def add_sum(self, name: str, *, shape: tuple[int, ...] = (), dtype: torch.dtype = torch.float64) -> None:
        """Declares a buffer that starts at 0 and that `sync` sums over all ranks.

        Args:
            name: The name of the attribute.
            shape: The shape of the buffer.
            dtype: float64, or int64 for counts, which are exact up to 2 ** 53.

        Raises:
            ValueError: If `dtype` is not one of these two.
        """
        if dtype not in (torch.float64, torch.int64):
            raise ValueError(
                f"{type(self).__name__}.add_sum: expected dtype float64 or int64 for {name!r}, got {dtype}; a sum "
                "over a whole data set needs that precision"
            )
        self.register_buffer(name, torch.zeros(shape, dtype=dtype), persistent=False)
        self._sum_names.append(name)

    def reset(self) -> None:
        """Discards all images seen so far."""
        for name in self._sum_names:
            self.get_buffer(name).zero_()
        for part in self._parts():
            part.reset()
        self._is_synced = False

    def sync(self) -> None:
        """Replaces the sums by those over all ranks. Every rank must call it; a second call does nothing."""
        if self._is_synced:
            return
        for part in self._parts():
            part.sync()
        buffers = [self.get_buffer(name) for name in self._sum_names]
        total = distributed.all_reduce_sum(torch.cat([buffer.reshape(-1).double() for buffer in buffers]))
        sums = torch.split(total, [buffer.numel() for buffer in buffers])
        for buffer, values in zip(buffers, sums, strict=True):
            buffer.copy_(values.reshape(buffer.shape))
        self._is_synced = True

    def compute(self) -> dict[str, float]:
        """Returns the scores of all images seen, by name. It waits for the GPU.

        Raises:
            RuntimeError: If there were no images, or there are several ranks and `sync` was not called.
        """
        if distributed.world_size() > 1 and not self._is_synced:
            raise RuntimeError(
                f"{type(self).__name__}.compute: expected sums over all {distributed.world_size()} ranks, got those of "
                "this rank alone; call sync() on every rank first"
            )
        if self.images.item() == 0:
            raise RuntimeError(
                f"{type(self).__name__}.compute: expected at least one image, got none; call update() first"
            )
        return self.result()

    def stamp(self) -> dict[str, str | int | None]:
        """Returns what must be equal for two scores to be comparable (protocol, weights, ...); {} if nothing."""
        return {}

    def result(self) -> dict[str, float]:
        """Computes the scores from sums over at least one image.

        By default these are the means over images of all float64 scalars, by the name of the sum.
        """
        return {name: (self.get_buffer(name) / self.images).item() for name in self._scalar_sums()}

    def ranked_scores(self) -> Sequence[str]:
        """Names the scores by which models can be ranked; `higher_is_better` says in which direction.

        By default these are all scores that the default `result` computes.
        """
        return self._scalar_sums()

    def _scalar_sums(self) -> list[str]:
        sums = {name: self.get_buffer(name) for name in self._sum_names}
        return [name for name, total in sums.items() if total.ndim == 0 and total.is_floating_point()]

    def _count(self, num_images: int) -> None:
        """Adds to the number of images, unless the sums are those of all ranks already."""
        self._check_not_synced()
        self.images += num_images

    def _check_not_synced(self) -> None:
        if self._is_synced:
            raise RuntimeError(
                f"{type(self).__name__}.update: expected a metric before sync(), got one whose sums are those of all "
                "ranks already; call reset() before the next set of images"
            )

    def _parts(self) -> list[MetricPart]:
        return [part for part in self.children() if isinstance(part, MetricPart)]


class CodeMetric(Metric):
    """Scores the code indices of images. No reconstruction is needed.

    A subclass implements `accumulate`, and `result` unless its scores are means over images.
    """

    @torch.no_grad()
    def update(self, *, image: Images, indices: Indices, reconstruction: Images | None = None) -> None:
        """Adds a batch, without waiting for the GPU.

        Args:
            image: The images, in [-1, 1].
            indices: The code indices of the images, int64. Those of stacked quantizers have one more axis, which comes
                last.
            reconstruction: Not used; accepted so that it can be called like a `ReconstructionMetric`.

        Raises:
            RuntimeError: If `sync` was called since the last `reset`.
        """
        self._count(len(image))
        self.accumulate(image=image, indices=indices)

    @abstractmethod
    def accumulate(self, *, image: Images, indices: Indices) -> None:
        """Adds a batch to the sums."""


class VectorMetric(Metric):
    """Scores the vectors of a tokenizer: before quantization, after it, and the features that it predicts from them.

    A subclass implements `accumulate`, and `result` unless its scores are means over images.
    """

    @torch.no_grad()
    def update(
        self,
        *,
        image: Images,
        latent: Float[Tensor, "b *position dim"],
        quantized: Float[Tensor, "b *_position _dim"],
        features: Float[Tensor, "b c rows columns"] | None = None,
    ) -> None:
        """Adds a batch, without waiting for the GPU.

        Args:
            image: The images, in [-1, 1].
            latent: The vectors before quantization, the code axis last.
            quantized: The codes that replaced them.
            features: The features of a teacher that the tokenizer predicts; None if it reconstructs images.

        Raises:
            ValueError: If the vectors or the features are not what the metric needs.
            RuntimeError: If `sync` was called since the last `reset`.
        """
        self._count(len(image))
        self.accumulate(image=image, latent=latent, quantized=quantized, features=features)

    @abstractmethod
    def accumulate(
        self,
        *,
        image: Images,
        latent: Float[Tensor, "b *position dim"],
        quantized: Float[Tensor, "b *_position _dim"],
        features: Float[Tensor, "b c rows columns"] | None,
    ) -> None:
        """Adds a batch to the sums."""


class ReconstructionMetric(Metric):
    """Compares images with their reconstructions.

    A subclass implements `accumulate`, and `result` unless its scores are means over images.
    """

    @torch.no_grad()
    def update(self, *, image: Images, reconstruction: Images, indices: Indices) -> None:
        """Adds a batch, without waiting for the GPU.

        Args:
            image: The images, in [-1, 1].
            reconstruction: The reconstructions, in about [-1, 1].
            indices: The code indices of the images, int64. Those of stacked quantizers have one more axis, which comes
                last.

        Raises:
            RuntimeError: If `sync` was called since the last `reset`.
        """
        self._count(len(image))
        self.accumulate(image=image, reconstruction=reconstruction, indices=indices)

    @abstractmethod
    def accumulate(self, *, image: Images, reconstruction: Images, indices: Indices) -> None:
        """Adds a batch to the sums; `update` calls it with its arguments."""
