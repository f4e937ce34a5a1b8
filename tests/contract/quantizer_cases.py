"""Every quantizer: the classes found in the package, and the combinations that papers use."""

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

import vq.quantizers
from vq.quantizers import (
    AffineCodebook,
    BinarySphericalQuantizer,
    ClusteredCodebook,
    Codebook,
    CosineDistance,
    DataMomentsInit,
    DirectionDistance,
    Distance,
    EMACodebook,
    Estimator,
    FiniteScalarQuantizer,
    FrozenCodebook,
    KMeansInit,
    LatticeInit,
    LearnedCodebook,
    LookupFreeQuantizer,
    MiniBatchKMeansCodebook,
    MultiScaleResidualQuantizer,
    NormalInit,
    ProductQuantizer,
    ProjectedCodebook,
    Quantizer,
    Regulariser,
    ReplaceDeadCodes,
    ReplaceUnusedCodes,
    ResidualQuantizer,
    Revival,
    RotationTrick,
    SphericalEMACodebook,
    VectorQuantizer,
)

SMALL = {"size": 16, "dim": 4}


def vectors(quantizer: Quantizer, *lead: int, dtype: torch.dtype | None = None) -> Tensor:
    """Returns random vectors, or grids of them if the quantizer takes grids."""
    return torch.randn(*lead, *quantizer.grid, quantizer.codebook_dim, dtype=dtype)


def found_classes(base: type) -> list[type]:
    """Returns the concrete subclasses of `base` in any file of the package (`example` may be missing)."""
    found: set[type] = set()
    for module in pkgutil.walk_packages(vq.quantizers.__path__, "vq.quantizers."):
        members = inspect.getmembers(importlib.import_module(module.name), inspect.isclass)
        found.update(cls for _, cls in members if issubclass(cls, base) and cls.__module__ == module.name)
    return sorted(
        (cls for cls in found if getattr(cls, "__abstractmethods__", frozenset()) <= {"example"}),
        key=lambda cls: cls.__name__,
    )


def example_of(cls: type) -> Quantizer | Codebook:
    if "example" in getattr(cls, "__abstractmethods__", ()):
        raise AssertionError(
            f"{cls.__module__}.{cls.__name__} has no example(): add a classmethod that returns a small one"
        )
    return cls.example()  # type: ignore[attr-defined, no-any-return]


def cases() -> Iterator[tuple[str, Callable[[], Quantizer]]]:
    """Yields for each case a name and a function that constructs the quantizer."""
    for cls in found_classes(Quantizer):
        yield cls.__name__, lambda cls=cls: example_of(cls)
    for cls in found_classes(Codebook):
        yield f"VectorQuantizer-{cls.__name__}", lambda cls=cls: VectorQuantizer(codebook=example_of(cls))
    for cls in found_classes(Estimator):
        yield (
            f"VectorQuantizer-{cls.__name__}",
            lambda cls=cls: VectorQuantizer(codebook=LearnedCodebook.example(), estimator=cls()),
        )
    for cls in found_classes(Regulariser):
        yield (
            f"VectorQuantizer-{cls.__name__}",
            lambda cls=cls: VectorQuantizer(codebook=LearnedCodebook.example(), regularisers=[cls()]),
        )
    for cls in found_classes(Distance):
        yield (
            f"VectorQuantizer-{cls.__name__}",
            lambda cls=cls: VectorQuantizer(codebook=LearnedCodebook.example(), distance=cls()),
        )
    for cls in found_classes(Revival):
        yield (
            f"VectorQuantizer-learned-{cls.__name__}",
            lambda cls=cls: VectorQuantizer(
                codebook=LearnedCodebook(**SMALL, init=NormalInit(), revival=cls())
            ),
        )
        yield (
            f"VectorQuantizer-ema-{cls.__name__}",
            lambda cls=cls: VectorQuantizer(codebook=EMACodebook(**SMALL, init=NormalInit(), revival=cls())),
        )
    yield (
        "residual-k-means-prefixes",
        lambda: ResidualQuantizer(
            quantizers=[VectorQuantizer(codebook=EMACodebook(**SMALL)) for _ in range(2)], prefix_rate=0.5
        ),
    )
    yield (
        "residual-beam",
        lambda: ResidualQuantizer(
            quantizers=[
                VectorQuantizer(codebook=EMACodebook(**SMALL, revival=ReplaceDeadCodes())),
                VectorQuantizer(codebook=LearnedCodebook(**SMALL, init=KMeansInit())),
                VectorQuantizer(codebook=LearnedCodebook(**SMALL, init=NormalInit())),
            ],
            beam_width=3,
        ),
    )
    yield (
        "residual-beam-shared",
        lambda: ResidualQuantizer(
            quantizers=[VectorQuantizer(codebook=EMACodebook(**SMALL))],
            depth=3,
            scales=[1.0, 0.5, 0.25],
            beam_width=4,
        ),
    )
    yield (
        "frozen-lattice",
        lambda: VectorQuantizer(
            codebook=FrozenCodebook(size=24, dim=4, init=LatticeInit()),
            distance=CosineDistance(),
            commitment_weight=0.0,
        ),
    )
    yield "fsq-noise", lambda: FiniteScalarQuantizer(levels=[8, 6, 5], noise_rate=0.5)
    yield (
        "residual-lfq",
        lambda: ResidualQuantizer(quantizers=[LookupFreeQuantizer(bits=4)], depth=3, scales=[1.0, 0.5, 0.25]),
    )
    yield (
        "multi-scale-binary",
        lambda: MultiScaleResidualQuantizer(
            quantizer=BinarySphericalQuantizer(bits=4), scales=[1, (2, 3)], mix=0.0, upsampling="bilinear"
        ),
    )
    yield (
        "product-unequal-packed",
        lambda: ProductQuantizer(
            quantizers=[
                VectorQuantizer(codebook=LearnedCodebook(size=size, dim=3, init=KMeansInit()))
                for size in (8, 4)
            ],
            dim=5,
            is_packed=True,
        ),
    )
    yield (
        "clustered-cosine",
        lambda: VectorQuantizer(
            codebook=ClusteredCodebook(**SMALL, init=KMeansInit()), distance=CosineDistance()
        ),
    )
    yield (
        "residual-clustered-shared",
        lambda: ResidualQuantizer(
            quantizers=[VectorQuantizer(codebook=ClusteredCodebook.example())], depth=2
        ),
    )
    yield (
        "affine-ema-k-means-revival",
        lambda: VectorQuantizer(
            codebook=AffineCodebook(codebook=EMACodebook(**SMALL, revival=ReplaceUnusedCodes()))
        ),
    )
    yield (
        "projected-moments-residual",
        lambda: ResidualQuantizer(
            quantizers=[VectorQuantizer(codebook=ProjectedCodebook(**SMALL, init=DataMomentsInit()))], depth=2
        ),
    )
    yield (
        "ema-direction",
        lambda: VectorQuantizer(
            codebook=EMACodebook(**SMALL, init=NormalInit()), distance=DirectionDistance()
        ),
    )
    yield "vq-vae-k-means", lambda: VectorQuantizer(codebook=LearnedCodebook(**SMALL, init=KMeansInit()))
    yield (
        "ema-k-means-revival",
        lambda: VectorQuantizer(codebook=EMACodebook(**SMALL, revival=ReplaceDeadCodes())),
    )
    yield (
        "ema-cosine",
        lambda: VectorQuantizer(codebook=EMACodebook(**SMALL, init=NormalInit()), distance=CosineDistance()),
    )
    yield (
        "mini-batch-k-means-cosine-revival",
        lambda: VectorQuantizer(
            codebook=MiniBatchKMeansCodebook(**SMALL, revival=ReplaceDeadCodes()), distance=CosineDistance()
        ),
    )
    yield (
        "spherical-ema-cosine",
        lambda: VectorQuantizer(codebook=SphericalEMACodebook(**SMALL), distance=CosineDistance()),
    )
    yield (
        "cosine-rotation",
        lambda: VectorQuantizer(
            codebook=LearnedCodebook(**SMALL), distance=CosineDistance(), estimator=RotationTrick()
        ),
    )


CASES = dict(cases())
