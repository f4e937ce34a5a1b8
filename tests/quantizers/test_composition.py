"""Every wrapper trains with every codebook, revival and regulariser, and each codebook learns once per step.

The classes to compose are found in the registries, so a new class fails here until this file says how to construct it.
"""

import copy
import inspect
import itertools
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from vq.ops.digits import unpack_digits
from vq.quantizers import (
    AffineCodebook,
    AxisQuantizer,
    BottleneckQuantizer,
    CarryQuantizer,
    Codebook,
    CosineDistance,
    Distance,
    EMACodebook,
    Estimator,
    LearnedCodebook,
    MultiScaleResidualQuantizer,
    NormalInit,
    NormPreservingQuantizer,
    ProductQuantizer,
    Quantizer,
    Regulariser,
    ResidualCoefficientQuantizer,
    ResidualQuantizer,
    Revival,
    VectorQuantizer,
    accumulate,
)
from vq.registry import CODEBOOKS, QUANTIZER_PARTS, QUANTIZERS

SIZE, DIM = 8, 3


def with_cosines(inner: Any) -> VectorQuantizer:
    """The same quantizer with the only distance that `NormPreservingQuantizer` takes."""
    return VectorQuantizer(
        codebook=inner.codebook,
        distance=CosineDistance(),
        estimator=inner.estimator,
        regularisers=inner.regularisers,
    )


WRAPPERS: dict[type, Callable[[Quantizer], Quantizer]] = {
    BottleneckQuantizer: lambda inner: BottleneckQuantizer(quantizer=inner, dim=5),
    CarryQuantizer: lambda inner: CarryQuantizer(quantizer=inner, digits=2),
    MultiScaleResidualQuantizer: lambda inner: MultiScaleResidualQuantizer(
        quantizer=inner, scales=[1, (1, 2), 2], num_convs=2
    ),
    NormPreservingQuantizer: lambda inner: NormPreservingQuantizer(quantizer=with_cosines(inner)),
    ProductQuantizer: lambda inner: ProductQuantizer(quantizers=[inner], groups=2),
    ResidualCoefficientQuantizer: lambda inner: ResidualCoefficientQuantizer(
        quantizer=inner, grid=(2, 2), depth=2, hidden_dim=4
    ),
    ResidualQuantizer: lambda inner: ResidualQuantizer(quantizers=[inner], depth=3),
}
NESTED: dict[str, Callable[[Quantizer], Quantizer]] = {
    "alone": lambda inner: inner,
    "grouped residual": lambda inner: ProductQuantizer(
        quantizers=[ResidualQuantizer(quantizers=[inner], depth=2)], groups=2
    ),
    "multi-scale digits": lambda inner: MultiScaleResidualQuantizer(
        quantizer=CarryQuantizer(quantizer=inner, digits=2), scales=[1, 2]
    ),
    "one codebook in two quantizers": lambda inner: ResidualQuantizer(
        quantizers=[inner, VectorQuantizer(codebook=inner.codebook)]  # type: ignore[arg-type]
    ),
}


def registered(registry: Any, base: type) -> list[type]:
    return [cls for cls in registry.module_dict.values() if issubclass(cls, base)]


def is_wrapper(cls: type) -> bool:
    return bool({"quantizer", "quantizers"} & set(inspect.signature(cls).parameters))


def books() -> dict[str, Callable[[], Codebook]]:
    """Returns every codebook; those with revivals, also inside an affine codebook, with every revival."""
    made: dict[str, Callable[[], Codebook]] = {}
    for cls in registered(CODEBOOKS, Codebook):
        arguments = inspect.signature(cls).parameters
        inner = [LearnedCodebook, EMACodebook] if "codebook" in arguments else [None]
        revivals = registered(QUANTIZER_PARTS, Revival) if {"revival", "codebook"} & set(arguments) else []
        for core, revival in itertools.product(inner, [None, *revivals]):

            def make(cls: type = cls, core: type | None = core, revival: type | None = revival) -> Codebook:
                options: dict[str, Any] = {"size": SIZE, "dim": DIM}
                options |= {"revival": revival()} if revival else {}
                if core is None:
                    return cls(**options)  # type: ignore[no-any-return]
                return AffineCodebook(codebook=core(init=NormalInit(), **options))

            made["-".join(part.__name__ for part in (cls, core, revival) if part)] = make
    return made


BOOKS = books()
REGULARISERS = [None, *registered(QUANTIZER_PARTS, Regulariser)]
DISTANCES, ESTIMATORS = registered(QUANTIZER_PARTS, Distance), registered(QUANTIZER_PARTS, Estimator)


def compositions(book: str) -> list[tuple[str, Quantizer]]:
    """Returns each wrapper and regulariser over the codebook, with alternating distances and estimators."""
    made = []
    wrappers = {cls.__name__: wrap for cls, wrap in WRAPPERS.items()} | NESTED
    parts = zip(itertools.cycle(DISTANCES), itertools.cycle(ESTIMATORS[:] + ESTIMATORS[:1]))
    for (name, wrap), regulariser in itertools.product(wrappers.items(), REGULARISERS):
        distance, estimator = next(parts)
        label = f"{name} over {book}, {distance.__name__}, {estimator.__name__}, {regulariser}"

        def inner(
            distance: type = distance, regulariser: type | None = regulariser, **options: Any
        ) -> VectorQuantizer:
            regularisers = [regulariser()] if regulariser else []
            return VectorQuantizer(
                codebook=BOOKS[book](), distance=distance(), regularisers=regularisers, **options
            )

        try:
            made.append((label, wrap(inner(estimator=estimator()))))
        except ValueError as error:
            if "has no effect" not in str(error):
                raise
            made.append((label.replace(estimator.__name__, "StraightThrough"), wrap(inner())))
    return made


def batch(quantizer: Quantizer) -> Tensor:
    return torch.randn(6, *quantizer.grid, quantizer.codebook_dim)


def state(quantizer: Quantizer) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in quantizer.state_dict().items()}


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor], message: str) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), f"{message}: {name}"


def counted(quantizer: Quantizer, indices: Tensor) -> Tensor:
    """Counts the indices of an output, over all stages and parts, for each code."""
    if isinstance(quantizer, MultiScaleResidualQuantizer | BottleneckQuantizer):
        return counted(quantizer.quantizer, indices)
    if isinstance(quantizer, NormPreservingQuantizer):
        indices = indices[..., 0]  # the others are the digits of the length
    if isinstance(quantizer, CarryQuantizer):
        indices = unpack_digits(indices, torch.tensor([SIZE, SIZE]))
    return torch.bincount(indices.flatten(), minlength=SIZE).float()


def events(book: Codebook) -> list[str]:
    """Returns a list to which the codebook adds an entry whenever it learns or revives codes."""
    seen: list[str] = []

    def noting(name: str) -> None:
        method = getattr(book, name)

        def noted(*args: Any) -> Any:
            seen.append(name)
            return method(*args)

        object.__setattr__(book, name, noted)

    noting("learn"), noting("_revive")
    return seen


def train_two_steps(label: str, quantizer: Quantizer) -> None:
    book = next(part for part in quantizer.modules() if isinstance(part, Codebook))
    optimizer = torch.optim.SGD(list(quantizer.parameters()) or [torch.zeros(1)], lr=0.01)
    for _ in range(2):
        z, usage = batch(quantizer).requires_grad_(), getattr(book, "usage", None)
        usage, began = None if usage is None else usage.clone(), bool(book.initialised)
        out = quantizer(z)
        (out.loss + out.quantized.square().mean()).backward()
        assert out.loss.isfinite(), label
        assert out.quantized.isfinite().all(), label
        assert z.grad is not None, label
        assert z.grad.isfinite().all(), label
        for name, parameter in quantizer.named_parameters():
            assert parameter.grad is None or parameter.grad.isfinite().all(), f"{label}: {name}"
        if isinstance(book, EMACodebook) and book.revival is None and began and usage is not None:
            wanted = 0.99 * usage + 0.01 * counted(quantizer, out.indices)
            torch.testing.assert_close(book.usage, wanted, msg=label)
        optimizer.step()
        optimizer.zero_grad()


def test_every_wrapper_is_composed() -> None:
    found = {cls for cls in registered(QUANTIZERS, Quantizer) if is_wrapper(cls)}
    assert found == set(WRAPPERS), "say in WRAPPERS how the new wrapper is made"
    assert is_wrapper(AxisQuantizer)  # only passes everything on, and is not registered
    assert len(BOOKS) >= 12
    assert {len(REGULARISERS), len(DISTANCES), len(ESTIMATORS)} <= set(range(3, 10))


@pytest.mark.parametrize("every", [pytest.param(1, marks=pytest.mark.slow), 5])
@pytest.mark.parametrize("book", sorted(BOOKS))
def test_every_composition_trains_two_steps(book: str, every: int) -> None:
    torch.manual_seed(0)
    for label, quantizer in compositions(book)[::every]:
        try:
            train_two_steps(label, quantizer)
        except RuntimeError as error:
            raise AssertionError(f"{label} does not train") from error


@pytest.mark.parametrize("book", sorted(BOOKS))
def test_a_step_is_one_event_for_each_codebook(book: str) -> None:
    torch.manual_seed(0)
    for label, quantizer in compositions(book)[:: len(REGULARISERS)]:
        z = batch(quantizer)
        quantizer(z)
        copied, reopened = copy.deepcopy(quantizer), pickle.loads(pickle.dumps(quantizer))
        outer = next(part for part in copied.modules() if isinstance(part, Codebook))
        seen = events(outer)
        torch.manual_seed(1)
        copied(z)
        assert seen.count("learn") <= 1, label
        assert seen.count("_revive") == (outer.revival is not None), label
        torch.manual_seed(1)
        reopened(z)
        assert_same(state(copied), state(reopened), label)
        before = state(quantizer.eval())
        assert torch.equal(quantizer(z).indices, quantizer.encode(z)), label
        assert_same(before, state(quantizer), label)


@pytest.mark.parametrize("book", sorted(BOOKS))
def test_every_composition_accumulates(book: str) -> None:
    torch.manual_seed(0)
    for label, quantizer in compositions(book)[:: len(REGULARISERS)]:
        if any(part.revival for part in quantizer.modules() if isinstance(part, Codebook)):
            continue  # a revival sees the first micro-batch only
        z = batch(quantizer)
        quantizer(z)
        one, two = copy.deepcopy(quantizer), copy.deepcopy(quantizer)
        one(z)
        with accumulate(two):
            two(z[:2])
        two(z[2:])
        for name, value in state(one).items():
            torch.testing.assert_close(
                two.state_dict()[name], value, atol=1e-6, rtol=1e-5, msg=f"{label} {name}"
            )
