"""A forward that raises restores every codebook, also between accumulated micro-batches."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from vq.quantizers import (
    AffineCodebook,
    ClusteredCodebook,
    Codebook,
    EMACodebook,
    LearnedCodebook,
    MultiScaleResidualQuantizer,
    NormalInit,
    ProductQuantizer,
    Quantizer,
    Regulariser,
    ReplaceUnusedCodes,
    ResidualQuantizer,
    VectorQuantizer,
    accumulate,
)

SMALL = {"size": 8, "dim": 4}
REVIVING = {"init": NormalInit(std=0.01), "revival": ReplaceUnusedCodes(patience=1)}
BOOKS: dict[str, Callable[[], Codebook]] = {
    "affine": lambda: AffineCodebook(codebook=EMACodebook(**SMALL, **REVIVING)),
    "clustered": lambda: ClusteredCodebook(**SMALL),
    "ema": lambda: EMACodebook(**SMALL, **REVIVING),
    "k-means": lambda: EMACodebook(**SMALL),
    "learned": lambda: LearnedCodebook(**SMALL, **REVIVING),
}


class Failing(Regulariser):
    """Raises in call number `call`."""

    def __init__(self, call: int) -> None:
        self.call, self.calls = call, 0

    def __call__(self, z: Tensor, *rest: object, **options: object) -> tuple[Tensor, dict[str, Tensor]]:
        self.calls += 1
        if self.calls == self.call:
            raise KeyboardInterrupt
        return z.new_zeros(()), {}


def state(quantizer: Quantizer) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in quantizer.state_dict().items()}


def assert_same(before: dict[str, Tensor], quantizer: Quantizer) -> None:
    for name, value in quantizer.state_dict().items():
        assert torch.equal(value, before[name]), name


def stages(book: str, call: int) -> Quantizer:
    inner = VectorQuantizer(codebook=BOOKS[book](), regularisers=[Failing(call)])
    return ResidualQuantizer(quantizers=[inner], depth=3)


@pytest.mark.parametrize("book", sorted(BOOKS))
def test_state_is_as_before_a_failed_forward(book: str) -> None:
    torch.manual_seed(0)
    quantizer = stages(book, call=2)
    before = state(quantizer)
    with pytest.raises(KeyboardInterrupt):
        quantizer(torch.randn(20, 4))
    assert_same(before, quantizer)
    # Further steps equal those of a quantizer that never failed.
    unbroken = stages(book, call=0)
    unbroken.load_state_dict(before)
    z = torch.randn(20, 4)
    for each in (quantizer, unbroken):
        torch.manual_seed(1)
        each(z)
    assert_same(state(unbroken), quantizer)
    # Later steps revive codes, which are restored too.
    quantizer.stages[0].regularisers[0].call = quantizer.stages[0].regularisers[0].calls + 3  # type: ignore[union-attr]
    before = state(quantizer)
    with pytest.raises(KeyboardInterrupt):
        quantizer(z)
    assert_same(before, quantizer)


def collect(quantizer: Quantizer, *batches: Tensor) -> None:
    with accumulate(quantizer):
        for z in batches:
            quantizer(z)


@pytest.mark.parametrize("book", sorted(BOOKS))
def test_a_failed_window_of_micro_batches_leaves_nothing_behind(book: str) -> None:
    torch.manual_seed(0)
    quantizer = stages(book, call=0)
    z = torch.randn(20, 4)
    quantizer(z)
    unbroken = stages(book, call=0)
    unbroken.load_state_dict(state(quantizer))
    quantizer.stages[0].regularisers[0].call = quantizer.stages[0].regularisers[0].calls + 5  # type: ignore[union-attr]
    with pytest.raises(KeyboardInterrupt):
        collect(quantizer, z[:3], z[3:5])
    part = quantizer.stages[0].codebook  # type: ignore[union-attr]
    assert not part.is_accumulating
    if part.revival is None:
        torch.manual_seed(1), quantizer(z)
        torch.manual_seed(1), unbroken(z)
        assert_same(state(unbroken), quantizer)


@pytest.mark.parametrize(
    "make",
    [
        lambda inner: inner,
        lambda inner: ResidualQuantizer(quantizers=[inner], depth=2),
        lambda inner: ProductQuantizer(quantizers=[inner], groups=2),
        lambda inner: MultiScaleResidualQuantizer(quantizer=inner, scales=[1, 2]),
    ],
)
def test_bad_input_is_refused_before_anything_changes(make: Callable[[Quantizer], Quantizer]) -> None:
    torch.manual_seed(0)
    quantizer = make(VectorQuantizer(codebook=EMACodebook(**SMALL)))
    before = state(quantizer)
    z = torch.randn(3, *quantizer.grid, quantizer.codebook_dim)
    with pytest.raises(ValueError, match="expected z with the last axis"):
        quantizer(z[..., 1:])
    with pytest.raises(ValueError, match="expected a mask of the shape"):
        quantizer(z, torch.ones(4, dtype=torch.bool))
    with pytest.raises(ValueError, match="expected at least one finite, unmasked vector"):
        quantizer(torch.full_like(z, torch.nan))
    assert_same(before, quantizer)
    assert all(part.event is None for part in quantizer.modules() if isinstance(part, Quantizer | Codebook))
    assert quantizer(z).loss.isfinite()
