"""Initialization of codebooks from the vectors of a model, before its training begins."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import islice
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vq.distributed import all_reduce_sum
from vq.quantizers.base import Quantizer, learnable
from vq.quantizers.codebooks.base import Codebook
from vq.quantizers.parts.initialization import DataMomentsInit, Initialization, KMeansInit
from vq.quantizers.vector import VectorQuantizer


@torch.no_grad()
def codebook_warmup(
    model: nn.Module,
    loader: Iterable[Any],
    *,
    method: str = "k_means",
    num_batches: int = 16,
    max_vectors: int = 100_000,
    run: Callable[[Any], object] | None = None,
) -> None:
    """Runs a model on some batches and initialises its codes where the vectors before its codebooks are.

    Every `VectorQuantizer` below `model` takes part. What a stage of a `ResidualQuantizer` sees depends on the
    codebooks before it, so the codebooks are fitted one after the other, in the order in which the model calls
    them, each from `num_batches` batches of its own. A codebook that is called several times per batch, such as a
    shared stage, is fitted to its first call and then, from as many batches again, to all calls.

    Only the codebooks change: the model runs in training mode without gradients, and its other buffers, such as the
    averages of batch norms, are restored. A codebook does not initialise itself again afterwards. With a process
    group, call this function on every rank with at least one batch of its own; all ranks get the same codes.

    Args:
        model: Model in training mode, so that the vectors have the distribution that training sees.
        loader: Iterable of batches, iterated once or twice for each codebook.
        method: `"k_means"` clusters the vectors, `"random"` takes some of them, `"moments"` draws from a
            Gaussian with their mean and standard deviation.
        num_batches: Maximum number of batches for each codebook.
        max_vectors: Approximate maximum number of random vectors of all batches to use; for k-means it is exact.
        run: Function that runs the model on a batch; None is `model(batch)`.

    Raises:
        ValueError: If the model or a quantizer in it is in eval mode, there is no codebook or none is called,
            there is no batch, the method is unknown, or a number is not positive.

    Example:
        >>> from vq.quantizers import LearnedCodebook
        >>> model = nn.Sequential(nn.Linear(3, 2), VectorQuantizer(codebook=LearnedCodebook(size=8, dim=2)))
        >>> codebook_warmup(model, [torch.randn(100, 3) for _ in range(4)], num_batches=2)
    """
    init = _initialization(method, num_batches, max_vectors)
    quantizers = _quantizers_to_warm(model)
    collector = _Collector(-(-max_vectors // num_batches))
    show_batches = partial(_run_some, run or model, loader, num_batches, collector)
    with _without_learning(model), collector.hooked(quantizers):
        for _ in {quantizer.codebook for quantizer in quantizers}:
            if not _fit_next(collector, init, show_batches):
                break
    if not collector.done:
        raise ValueError(
            "codebook_warmup: expected a model that calls its quantizers, got one that called none; check `run`"
        )


def _fit_next(collector: "_Collector", init: Initialization, show_batches: Callable[[], None]) -> bool:
    """Fits the first codebook called that has not been fitted yet; returns False if the model calls none."""
    collector.restart()
    show_batches()
    if (book := collector.current) is None:
        return False
    _fit(book, init, collector)
    if collector.num_calls > collector.num_batches:
        collector.restart(takes_all=True)
        show_batches()
        _fit(book, init, collector)
    collector.done.add(book)
    return True


def _run_some(
    run: Callable[[Any], object], loader: Iterable[Any], num_batches: int, collector: "_Collector"
) -> None:
    has_batches = False
    for batch in islice(loader, num_batches):
        has_batches, collector.is_taken = True, False
        run(batch)
    if not has_batches:
        raise ValueError(
            "codebook_warmup: expected a loader that yields batches each time it is iterated, got none; a "
            "generator can be iterated only once"
        )


def _quantizers_to_warm(model: nn.Module) -> list[VectorQuantizer]:
    quantizers = [module for module in model.modules() if isinstance(module, VectorQuantizer)]
    if not quantizers:
        raise ValueError(
            f"codebook_warmup: expected a model with a VectorQuantizer in it, got {type(model).__name__}"
        )
    if not model.training or not all(quantizer.training for quantizer in quantizers):
        raise ValueError(
            "codebook_warmup: expected a model in training mode, got one in eval mode; call model.train() first"
        )
    return quantizers


def _initialization(method: str, num_batches: int, max_vectors: int) -> Initialization:
    if num_batches < 1 or max_vectors < 1:
        raise ValueError(
            f"codebook_warmup: expected positive num_batches and max_vectors, got {num_batches} and {max_vectors}"
        )
    if method == "k_means":
        return KMeansInit(max_vectors=max_vectors)
    if method == "random":
        return KMeansInit(steps=0, seeding="random", max_vectors=max_vectors)
    if method == "moments":
        return DataMomentsInit()
    raise ValueError(f"codebook_warmup: expected a method out of k_means, random, moments, got {method!r}")


class _Collector:
    """Collects vectors of the codebook that is fitted: the first one called that has not been fitted yet."""

    def __init__(self, per_batch: int) -> None:
        self.per_batch = per_batch
        self.done: set[Codebook] = set()
        self.restart()

    def restart(self, *, takes_all: bool = False) -> None:
        self.takes_all = takes_all
        self.num_calls = 0
        self.current: Codebook | None = None
        self.kept: list[Float[Tensor, "_ dim"]] = []
        self.num_seen = 0
        self.num_batches = 0
        self.is_taken = False

    @contextmanager
    def hooked(self, quantizers: Iterable[VectorQuantizer]) -> Iterator[None]:
        handles = [q.register_forward_pre_hook(self._look, with_kwargs=True) for q in quantizers]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _look(self, quantizer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if not isinstance(quantizer, VectorQuantizer) or quantizer.codebook in self.done:
            return
        if self.current is None:
            self.current = quantizer.codebook
        if quantizer.codebook is not self.current:
            return
        self.num_calls += 1
        if self.is_taken and not self.takes_all:
            return
        z = args[0] if args else kwargs["z"]
        mask = args[1] if len(args) > 1 else kwargs.get("mask")
        flat = z.detach().reshape(-1, quantizer.codebook_dim)
        vectors = quantizer.distance.place(flat if flat.dtype == torch.float64 else flat.float())
        vectors = vectors[learnable(vectors, mask)]
        self.num_batches += not self.is_taken
        self.is_taken = True
        self.num_seen += len(vectors)
        if len(vectors) > self.per_batch:
            vectors = vectors[torch.randperm(len(vectors))[: self.per_batch].to(vectors.device)]
        self.kept.append(vectors)


def _fit(book: Codebook, init: Initialization, collector: _Collector) -> None:
    vectors = torch.cat(collector.kept).to(book.vectors.dtype)
    codes, counts = init.fit(vectors, vectors.new_ones(len(vectors), dtype=torch.bool), book.size)
    message = vectors.new_tensor([collector.num_seen, len(vectors)], dtype=torch.float64)
    num_seen, num_kept = all_reduce_sum(message)
    # The usage that a training step will count, estimated from the collected sample.
    book.begin(codes, (counts * (num_seen / num_kept / collector.num_batches)).to(counts.dtype))


@contextmanager
def _without_learning(model: nn.Module) -> Iterator[None]:
    """Keeps quantizers from learning; restores the modes, and the buffers outside of quantizers, at the end."""
    modes = {module: module.training for module in model.modules()}
    quantizers = [module for module in modes if isinstance(module, Quantizer)]
    own = {buffer for quantizer in quantizers for buffer in quantizer.buffers()}
    before = {buffer: buffer.clone() for buffer in model.buffers() if buffer not in own}
    try:
        for quantizer in quantizers:
            quantizer.eval()
        yield
    finally:
        for module, was_training in modes.items():
            module.training = was_training
        for buffer, value in before.items():
            buffer.copy_(value)
