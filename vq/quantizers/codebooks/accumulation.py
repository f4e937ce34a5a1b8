"""Learning codebooks once from several micro-batches."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from vq.quantizers.codebooks.base import Codebook


@contextmanager
def accumulate(module: nn.Module) -> Iterator[None]:
    """Lets training forwards of the codebooks below `module` collect statistics without learning from them.

    Run every micro-batch of an optimizer step but the last one inside: the codebooks then learn once, in the last
    forward, as from one large batch. This is the counterpart of `DistributedDataParallel.no_sync`. K-means and
    revival take their vectors from the first micro-batch.

    The collected statistics are not part of the `state_dict`, so save between optimizer steps. If the block raises,
    what it has collected is discarded.

    Example:
        >>> import torch
        >>> from vq.quantizers import EMACodebook, VectorQuantizer
        >>> quantizer = VectorQuantizer(codebook=EMACodebook(size=8, dim=2))
        >>> with accumulate(quantizer):
        ...     _ = quantizer(torch.randn(16, 2))
        >>> _ = quantizer(torch.randn(16, 2))
    """
    books = [book for book in module.modules() if isinstance(book, Codebook)]
    before = [(book.is_accumulating, [getattr(book, name) for name in book.collected]) for book in books]
    is_done = False
    try:
        for book in books:
            book.is_accumulating = True
        yield
        is_done = True
    finally:
        for book, (was_accumulating, collected) in zip(books, before, strict=True):
            book.is_accumulating = was_accumulating
            if not is_done:
                for name, value in zip(book.collected, collected, strict=True):
                    setattr(book, name, value)
