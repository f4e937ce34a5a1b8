"""How codes are initialised: drawn or read when the codebook is constructed, or fitted to the first training batch."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Shaped
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from vq.distributed import all_gather_cat, all_reduce_sum, broadcast, rank, world_size
from vq.files import check_sha256, read_npy
from vq.ops.kmeans import Seeding, k_means
from vq.registry import QUANTIZER_PARTS


class Initialization(ABC):
    """Provides the first code vectors of a codebook."""

    needs_data: ClassVar[bool] = False
    """Whether the codebook calls `fit` in the first training forward to replace the drawn vectors."""

    @abstractmethod
    def draw(self, size: int, dim: int) -> Float[Tensor, "size dim"]:
        """Returns the vectors of a new codebook, drawn from the default generator or read from a file."""

    def fit(
        self, z: Float[Tensor, "n dim"], mask: Bool[Tensor, "n"], size: int
    ) -> tuple[Float[Tensor, "size dim"], Float[Tensor, "size"]]:
        """Returns code vectors fitted to the first batch, and how often each code is used in it.

        Args:
            z: This rank's vectors.
            mask: True for the vectors that may be used.
            size: Number of codes.

        Returns:
            Vectors and usage, the same on every rank.
        """
        raise NotImplementedError(
            f"{type(self).__name__}: expected an init that needs data, got one that draws its codes; call draw()"
        )


@QUANTIZER_PARTS.register_module()
@dataclass(frozen=True, kw_only=True)
class UniformInit(Initialization):
    """Draws every coordinate uniformly from [-scale, scale], as VQGAN does; prone to codebook collapse.

    Args:
        scale: Bound of the coordinates; None is 1 / size.
    """

    scale: float | None = None

    def draw(self, size: int, dim: int) -> Float[Tensor, "size dim"]:
        """Draws uniform vectors."""
        scale = 1 / size if self.scale is None else self.scale
        return torch.empty(size, dim).uniform_(-scale, scale)


@QUANTIZER_PARTS.register_module()
@dataclass(frozen=True, kw_only=True)
class NormalInit(Initialization):
    """Draws every coordinate from a Gaussian with mean 0.

    Args:
        std: Standard deviation; None is dim^-0.5, which gives vectors of about length 1.
    """

    std: float | None = None

    def draw(self, size: int, dim: int) -> Float[Tensor, "size dim"]:
        """Draws Gaussian vectors."""
        return torch.randn(size, dim) * (dim**-0.5 if self.std is None else self.std)


@QUANTIZER_PARTS.register_module()
@dataclass(frozen=True, kw_only=True)
class KMeansInit(Initialization):
    """Clusters the vectors of the first training batch of all ranks by k-means.

    This happens once, before the first training forward quantizes. Until then, for example in an evaluation before
    any training, the codes are random Gaussian vectors. Under `accumulate` the clustering sees the first
    micro-batch. Rank 0 clusters and broadcasts the result, so that all ranks have the same codebook: the one that a
    single process would find in the concatenated batch. If there are fewer vectors than codes, the missing codes
    are noisy copies (`vq.ops.kmeans.k_means`).

    Args:
        steps: Number of Lloyd steps.
        seeding: `"k-means++"`, which takes one pass over the vectors per code, or `"random"`.
        max_vectors: Maximum number of vectors to cluster; from a larger batch this many are drawn.
    """

    needs_data: ClassVar[bool] = True
    steps: int = 10
    seeding: Seeding = "k-means++"
    max_vectors: int = 100_000

    def draw(self, size: int, dim: int) -> Float[Tensor, "size dim"]:
        """Draws Gaussian vectors of about length 1."""
        return NormalInit().draw(size, dim)

    def fit(
        self, z: Float[Tensor, "n dim"], mask: Bool[Tensor, "n"], size: int
    ) -> tuple[Float[Tensor, "size dim"], Float[Tensor, "size"]]:
        """Returns the cluster centres, and the number of vectors of the batch nearest to each.

        Raises:
            ValueError: If no rank has a vector.
        """
        fitted = _fit_k_means(
            z.detach(),
            mask,
            size=size,
            steps=self.steps,
            seeding=self.seeding,
            max_vectors=self.max_vectors,
        )
        return fitted[:, 1:], fitted[:, 0]


@QUANTIZER_PARTS.register_module()
@dataclass(frozen=True, kw_only=True)
class DataMomentsInit(Initialization):
    """Draws Gaussian vectors with the mean and the standard deviation of the first training batch of all ranks.

    Mean and deviation are those of each channel. This is cheap for any number of codes, but some codes may be far
    from every vector. It happens once, before the first training forward quantizes, with the same result on every
    rank. Until then the codes are Gaussian vectors of about length 1.
    """

    needs_data: ClassVar[bool] = True

    def draw(self, size: int, dim: int) -> Float[Tensor, "size dim"]:
        """Draws Gaussian vectors of about length 1."""
        return NormalInit().draw(size, dim)

    def fit(
        self, z: Float[Tensor, "n dim"], mask: Bool[Tensor, "n"], size: int
    ) -> tuple[Float[Tensor, "size dim"], Float[Tensor, "size"]]:
        """Draws Gaussian vectors with the moments of the batch, and a usage that is the same for every code.

        Raises:
            ValueError: If no rank has a vector.
        """
        fitted = _fit_moments(z.detach(), mask, size=size)
        return fitted[:, 1:], fitted[:, 0]


@QUANTIZER_PARTS.register_module()
@dataclass(frozen=True, kw_only=True)
class FileInit(Initialization):
    """Reads the vectors from a `.safetensors` file, or from a `.npy` file without pickled objects.

    The file is read whenever the codebook is constructed, also if a checkpoint is loaded afterwards.

    Args:
        path: Path of the file, which holds floating-point numbers of the shape (size, dim).
        key: Name of the tensor in a `.safetensors` file; None if the file has only one.
        sha256: Expected SHA-256 of the file in hexadecimal; None accepts any file.
    """

    path: str
    key: str | None = None
    sha256: str | None = None

    def draw(self, size: int, dim: int) -> Float[Tensor, "size dim"]:
        """Reads the vectors of the file in float32.

        Raises:
            ValueError: If the file is missing, cannot be read or has another SHA-256, or does not hold finite
                numbers of the shape (size, dim).
        """
        found = _read_array(Path(self.path), self.key, self.sha256)
        if found.shape != (size, dim) or not found.is_floating_point():
            raise ValueError(
                f"FileInit: expected floating-point numbers of the shape {(size, dim)}, size and dim of the "
                f"codebook, in {self.path}, got {found.dtype} of the shape {tuple(found.shape)}"
            )
        if not bool(found.isfinite().all()):
            raise ValueError(
                f"FileInit: expected finite numbers in {self.path}, got {int((~found.isfinite()).sum())} "
                f"that are NaN or infinite"
            )
        return found.float()


def _read_array(path: Path, key: str | None, sha256: str | None) -> Shaped[Tensor, "..."]:
    if path.suffix not in (".safetensors", ".npy") or (path.suffix == ".npy" and key is not None):
        raise ValueError(
            f"FileInit: expected a .safetensors file, or a .npy file without a key, got {path} and key={key!r}"
        )
    if path.exists() and not path.is_file():
        raise ValueError(f"FileInit: expected a file, got {path}")
    try:
        check_sha256(path, sha256)
        is_npy = path.suffix == ".npy"
        tensors = {"": torch.from_numpy(read_npy(path))} if is_npy else load_file(path)
    except (OSError, SafetensorError, EOFError, TypeError, ValueError) as error:
        raise ValueError(f"FileInit: expected a readable array in {path}, got: {error}") from error
    if key is None and len(tensors) == 1:
        return next(iter(tensors.values()))
    if key is None or key not in tensors:
        raise ValueError(
            f"FileInit: expected a key out of {', '.join(sorted(tensors))} in {path}, got {key!r}"
        )
    return tensors[key]


# A custom operator, because gathering a varying number of vectors and drawing seeds cannot be traced. With it,
# `torch.compile` keeps the training forward in one graph. It runs once per training.
@torch.library.custom_op(
    "vq::fit_k_means",
    mutates_args=(),
    schema="(Tensor z, Tensor mask, *, int size, int steps, str seeding, int max_vectors) -> Tensor",
)
def _fit_k_means(
    z: Tensor, mask: Tensor, *, size: int, steps: int, seeding: Seeding, max_vectors: int
) -> Tensor:
    # Every rank draws, so that the generators stay in the same state; the draw of rank 0 is used.
    seed = int(broadcast(torch.randint(2**62, (1,)).to(z.device)))
    generator = torch.Generator().manual_seed(seed)
    vectors, total = _gather_at_most(z[mask], max_vectors, generator)
    if total == 0:
        raise ValueError(
            "KMeansInit: expected at least one finite, unmasked vector in the first training batch, got none"
        )
    if rank() == 0:
        centres, counts = k_means(vectors, size, steps=steps, seeding=seeding, generator=generator)
        fitted = torch.cat([counts[:, None] * (total / len(vectors)), centres], dim=1)
    else:
        fitted = z.new_empty(size, z.shape[1] + 1)
    return broadcast(fitted)


@_fit_k_means.register_fake
def _(z: Tensor, mask: Tensor, *, size: int, steps: int, seeding: Seeding, max_vectors: int) -> Tensor:
    return z.new_empty((size, z.shape[1] + 1))


# A custom operator, because the test whether there is any vector cannot be traced.
@torch.library.custom_op(
    "vq::fit_moments",
    mutates_args=(),
    schema="(Tensor z, Tensor mask, *, int size) -> Tensor",
)
def _fit_moments(z: Tensor, mask: Tensor, *, size: int) -> Tensor:
    drawn = torch.randn(size, z.shape[1]).to(z)
    # Two passes: E[z^2] - E[z]^2 would lose the digits of a small deviation.
    vectors = z[mask].double()
    sums = all_reduce_sum(torch.cat([vectors.new_tensor([len(vectors)]), vectors.sum(0)]))
    total = sums[0]
    if total == 0:
        raise ValueError(
            "DataMomentsInit: expected at least one finite, unmasked vector in the first training batch, got none"
        )
    mean = sums[1:] / total
    deviation = (all_reduce_sum((vectors - mean).square().sum(0)) / total).sqrt()
    codes = mean + deviation * drawn.double()
    return broadcast(torch.cat([(total / size).expand(size, 1), codes], dim=1).to(z.dtype))


@_fit_moments.register_fake
def _(z: Tensor, mask: Tensor, *, size: int) -> Tensor:
    return z.new_empty((size, z.shape[1] + 1))


def _gather_at_most(
    vectors: Float[Tensor, "n dim"], limit: int, generator: torch.Generator
) -> tuple[Float[Tensor, "at_most_limit dim"], int]:
    """Gathers at most `limit` random vectors of all ranks, ordered by rank and row, and counts all of them."""
    lengths: list[int] = all_gather_cat(torch.tensor([len(vectors)], device=vectors.device)).tolist()
    total, first = sum(lengths), sum(lengths[: rank()])
    if total > limit:
        chosen = torch.randperm(total, generator=generator)[:limit].sort().values
        here = chosen[(chosen >= first) & (chosen < first + len(vectors))] - first
        vectors = vectors[here.to(vectors.device)]
    # A rank without vectors must take part in the collective too.
    return (all_gather_cat(vectors) if world_size() > 1 else vectors), total
