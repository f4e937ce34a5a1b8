"""What every metric is: sums over a whole set of images, on all ranks, and the scores they make.

There are two kinds. A `Metric` compares images with their own reconstructions, or counts the codes of both. A
`SetMetric` scores a set of pictures as a whole, so it can score generated pictures, which have no original.
"""

from abc import ABC, abstractmethod
from typing import ClassVar, TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from vq import distributed

Images: TypeAlias = Float[Tensor, "b 3 h w"]
"""Images or reconstructions, in [-1, 1]."""

Indices: TypeAlias = Int[Tensor, "b *grid"]
"""Code indices, int64; stacked quantizers have one trailing axis more."""


class Metric(nn.Module, ABC):
    """Sums up what it sees of a set of images, and turns the sums into scores at the end.

    `update` once a batch, `sync` once on every rank, `compute` where the scores are wanted. Each rank
    updates with its own images, as many or few as it has (a rank may have none), and the scores are
    those of one process that saw them all. To add one, declare the sums in `__init__` (`add_sum`), and
    write `accumulate`, and `result` where the scores are more than means over images.

    The sums are float64 or int64 buffers outside the state dict; move the metric with `.to(device)`,
    never to another floating-point type.
    """

    higher_is_better: ClassVar[bool | None]
    """Whether a larger score is a better one; None where neither is."""

    images: Tensor

    def __init__(self) -> None:
        super().__init__()
        self._sum_names: list[str] = []
        self._is_synced = False
        self.add_sum("images", dtype=torch.int64)

    def add_sum(self, name: str, *, shape: tuple[int, ...] = (), dtype: torch.dtype = torch.float64) -> None:
        """Declares a buffer that starts at 0, and that `sync` replaces by its sum over all ranks.

        Args:
            name: The attribute's name.
            shape: Its shape.
            dtype: float64, or int64 for counts (exact up to 2 ** 53).

        Raises:
            ValueError: If `dtype` is another one.
        """
        if dtype not in (torch.float64, torch.int64):
            raise ValueError(
                f"{type(self).__name__}.add_sum: expected dtype float64 or int64 for {name!r}, got {dtype}; a sum "
                "over a whole data set needs that precision"
            )
        self.register_buffer(name, torch.zeros(shape, dtype=dtype), persistent=False)
        self._sum_names.append(name)

    @property
    def is_synced(self) -> bool:
        """Whether the sums are those of all ranks already."""
        return self._is_synced

    def reset(self) -> None:
        """Forgets all images."""
        for name in self._sum_names:
            self.get_buffer(name).zero_()
        self._is_synced = False

    @torch.no_grad()
    def update(self, *, image: Images, reconstruction: Images, indices: Indices) -> None:
        """Adds a batch; nothing waits for the GPU.

        Args:
            image: The images, in [-1, 1].
            reconstruction: Their reconstructions, about [-1, 1].
            indices: Their code indices, int64; stacked quantizers have one trailing axis more.

        Raises:
            RuntimeError: If the ranks' sums are joined already; `reset` first.
        """
        self._refuse_if_synced()
        self.images += len(image)
        self.accumulate(image=image, reconstruction=reconstruction, indices=indices)

    def _refuse_if_synced(self) -> None:
        if self._is_synced:
            raise RuntimeError(
                f"{type(self).__name__}.update: expected a metric that is still counting, got one that has "
                "joined its sums over the ranks; call reset() before the next set of images"
            )

    def sync(self) -> None:
        """Replaces the sums by those over all ranks; every rank must call it. A second call does nothing."""
        if self._is_synced:
            return
        buffers = [self.get_buffer(name) for name in self._sum_names]
        total = distributed.all_reduce_sum(torch.cat([buffer.reshape(-1).double() for buffer in buffers]))
        parts = torch.split(total, [buffer.numel() for buffer in buffers])
        for buffer, part in zip(buffers, parts, strict=True):
            buffer.copy_(part.reshape(buffer.shape))
        self._is_synced = True

    def compute(self) -> dict[str, float]:
        """The scores of all images seen, by name. It waits for the GPU.

        Raises:
            RuntimeError: If there were no images, or several ranks have not joined their sums.
        """
        if distributed.world_size() > 1 and not self._is_synced:
            raise RuntimeError(
                f"{type(self).__name__}.compute: expected sums that are joined over the "
                f"{distributed.world_size()} ranks, got this rank's own; call sync() on every rank first"
            )
        if self.images.item() == 0:
            raise RuntimeError(
                f"{type(self).__name__}.compute: expected at least one image, got none; call update() first"
            )
        return self.result()

    def stamp(self) -> dict[str, str | int | None]:
        """What must be equal for two of its scores to be comparable (protocol, weights, ...); {} if nothing."""
        return {}

    @abstractmethod
    def accumulate(self, *, image: Images, reconstruction: Images, indices: Indices) -> None:
        """Adds a batch to the sums; see `update`."""

    def result(self) -> dict[str, float]:
        """The scores, from sums over at least one image: each float64 scalar's mean over images, by its name."""
        sums = {name: self.get_buffer(name) for name in self._sum_names}
        return {
            name: (total / self.images).item()
            for name, total in sums.items()
            if total.ndim == 0 and total.is_floating_point()
        }


class SetMetric(Metric):
    """Scores a set of pictures as a whole: of reconstructions, or of generated pictures, which have no original.

    Reconstructions come by `update`. Generated pictures come by `update_generated`, and the real images that they are
    compared with by `update_real`, where `needs_real` says so; the numbers of the two may differ. A picture is never
    compared with itself. To add one, write `add_made`, and `add_real` where real images are needed.
    """

    @property
    @abstractmethod
    def needs_real(self) -> bool:
        """Whether it compares with real images that it has to see, instead of none or a file's statistics."""

    @abstractmethod
    def add_made(self, made: Images, decides: Images) -> None:
        """Adds reconstructions or generated pictures.

        Args:
            made: The pictures.
            decides: The pictures whose pixels decide which of `made` are sampled: the originals of reconstructions,
                generated pictures themselves.
        """

    def add_real(self, real: Images) -> None:
        """Adds real images; called only where `needs_real`."""
        raise NotImplementedError(
            f"{type(self).__name__}.add_real: needs_real is True, so it must be written"
        )

    def accumulate(self, *, image: Images, reconstruction: Images, indices: Indices) -> None:
        """Adds the images to one side and their reconstructions to the other."""
        self.add_made(reconstruction, image)
        if self.needs_real:
            self.add_real(image)

    @torch.no_grad()
    def update_generated(self, made: Images) -> None:
        """Adds a batch of generated pictures, in [-1, 1].

        Raises:
            RuntimeError: If the ranks' sums are joined already; `reset` first.
        """
        self._refuse_if_synced()
        self.images += len(made)
        self.add_made(made, made)

    @torch.no_grad()
    def update_real(self, real: Images) -> None:
        """Adds a batch of real images, in [-1, 1], for generated pictures to be compared with.

        Raises:
            RuntimeError: If the ranks' sums are joined already; `reset` first.
        """
        self._refuse_if_synced()
        if self.needs_real:
            self.add_real(real)
