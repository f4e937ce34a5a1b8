"""Run by test_quantizers.py: ranks with uneven shards learn what one process learns from all of it.

Everything is in float64: sums in another order differ by about 1e-16 of their terms on any processor, and a few
hundred additions and two steps enlarge that far less than to 1e-9, while a wrong mean is off by percents.

The ranks are forked from this process after it has computed what one process does.
"""

import inspect
import itertools
import sys
import warnings
from collections.abc import Callable
from functools import partial

import torch
import torch.distributed as dist
from forked_ranks import run_on_ranks
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vq.distributed import all_gather_cat, all_reduce_sum
from vq.quantizers import (
    AffineCodebook,
    BinarySphericalQuantizer,
    BottleneckQuantizer,
    BridgedCodebook,
    CarryQuantizer,
    ClusteredCodebook,
    Codebook,
    CosineDistance,
    DataMomentsInit,
    DirectionalReparameterisation,
    EMACodebook,
    EntropyRegulariser,
    FrozenCodebook,
    GumbelQuantizer,
    ImplicitResidualQuantizer,
    IndexBackpropagationQuantizer,
    KMeansInit,
    LearnedCodebook,
    LookupFreeQuantizer,
    MiniBatchKMeansCodebook,
    MultiScaleResidualQuantizer,
    NormalInit,
    NormPreservingQuantizer,
    OrthogonalRegulariser,
    ProductQuantizer,
    Quantizer,
    ReplaceDeadCodes,
    ReplaceUnusedCodes,
    ResidualCoefficientQuantizer,
    ResidualQuantizer,
    ScalarPerturbationQuantizer,
    SoftmaxQuantizer,
    SphericalEMACodebook,
    VectorQuantizer,
    accumulate,
    codebook_warmup,
)
from vq.registry import CODEBOOKS, QUANTIZERS

DIM, STEPS = 4, 4
SHARDS = {2: [70, 30], 4: [50, 0, 49, 1]}
"""How many of a step's 100 vectors each rank has; one rank may have none."""

BOOKS: dict[str, Callable[[], Codebook]] = {
    "ema": lambda: EMACodebook(size=16, dim=DIM, decay=0.8, init=NormalInit()),
    "ema-k-means": lambda: EMACodebook(size=16, dim=DIM, decay=0.8),
    "ema-k-means-of-some": lambda: EMACodebook(size=16, dim=DIM, init=KMeansInit(max_vectors=60)),
    "ema-k-means-few-vectors": lambda: EMACodebook(size=120, dim=DIM, decay=0.8),
    "ema-revival": lambda: EMACodebook(
        size=64, dim=DIM, decay=0.5, init=NormalInit(std=0.01), revival=ReplaceDeadCodes()
    ),
    "affine-ema-patience": lambda: AffineCodebook(
        codebook=EMACodebook(
            size=64, dim=DIM, decay=0.5, init=NormalInit(std=0.01), revival=ReplaceUnusedCodes(patience=2)
        )
    ),
    "mini-batch-k-means": lambda: MiniBatchKMeansCodebook(size=16, dim=DIM),
    "mini-batch-k-means-revival": lambda: MiniBatchKMeansCodebook(
        size=64, dim=DIM, usage_decay=0.5, init=NormalInit(std=0.01), revival=ReplaceDeadCodes()
    ),
    "spherical-ema": lambda: SphericalEMACodebook(size=16, dim=DIM, decay=0.8),
    "frozen-moments": lambda: FrozenCodebook(size=16, dim=DIM, init=DataMomentsInit()),
    "learned-k-means": lambda: LearnedCodebook(size=16, dim=DIM, init=KMeansInit()),
    "learned-revival": lambda: LearnedCodebook(
        size=64, dim=DIM, usage_decay=0.5, init=NormalInit(std=0.01), revival=ReplaceDeadCodes()
    ),
}


def averaged(dim: int = DIM) -> VectorQuantizer:
    return VectorQuantizer(codebook=EMACodebook(size=16, dim=dim, decay=0.5, revival=ReplaceDeadCodes()))


COMPOSITES: dict[str, Callable[[], Quantizer]] = {
    "residual-shared": lambda: ResidualQuantizer(quantizers=[averaged()], depth=3),
    "residual-separate": lambda: ResidualQuantizer(quantizers=[averaged(), averaged()]),
    "residual-beam": lambda: ResidualQuantizer(quantizers=[averaged(), averaged()], beam_width=3),
    "product-shared": lambda: ProductQuantizer(quantizers=[averaged(2)], groups=2),
    "product-packed": lambda: ProductQuantizer(quantizers=[averaged(3), averaged(1)], is_packed=True),
    "carry": lambda: CarryQuantizer(quantizer=averaged(2), digits=2, dim=4),
    "multi-scale": lambda: MultiScaleResidualQuantizer(quantizer=averaged(), scales=[1, (1, 2), (2, 3)]),
}


REGULARISERS = [EntropyRegulariser(temperature=1.0), OrthogonalRegulariser(only_used=True)]
STATEFUL: dict[str, Callable[[], Codebook]] = {
    "affine": lambda: AffineCodebook(
        codebook=EMACodebook(size=16, dim=DIM, decay=0.5, revival=ReplaceUnusedCodes(patience=1))
    ),
    "clustered": lambda: ClusteredCodebook(size=16, dim=DIM, init=NormalInit(std=0.1)),
    "ema": lambda: EMACodebook(size=16, dim=DIM, decay=0.5, revival=ReplaceDeadCodes()),
    "learned": lambda: LearnedCodebook(size=16, dim=DIM, init=KMeansInit(), revival=ReplaceDeadCodes()),
    "mini-batch-k-means": lambda: MiniBatchKMeansCodebook(size=16, dim=DIM, revival=ReplaceDeadCodes()),
    "spherical-ema": lambda: SphericalEMACodebook(size=16, dim=DIM, revival=ReplaceUnusedCodes(patience=1)),
}
WRAPPERS: dict[str, Callable[[Quantizer], Quantizer]] = {
    "bottleneck": lambda inner: BottleneckQuantizer(quantizer=inner, dim=DIM),
    "carry": lambda inner: CarryQuantizer(quantizer=inner, digits=1),
    "coefficients": lambda inner: ResidualCoefficientQuantizer(
        quantizer=inner, grid=(2, 3), depth=2, hidden_dim=4
    ),
    "multi-scale": lambda inner: MultiScaleResidualQuantizer(quantizer=inner, scales=[1, (1, 2), (2, 3)]),
    "norm-preserving": lambda inner: NormPreservingQuantizer(
        quantizer=VectorQuantizer(
            codebook=inner.codebook, distance=CosineDistance(), regularisers=inner.regularisers
        )
    ),
    "product": lambda inner: ProductQuantizer(quantizers=[inner], groups=1),
    "residual": lambda inner: ResidualQuantizer(quantizers=[inner], depth=3),
}
"""With the losses of all, under a mask and under activation checkpointing; `DIM` is that of `z` everywhere."""

LOSSES: dict[str, Callable[[], Quantizer]] = {
    "bridged": lambda: VectorQuantizer(
        codebook=BridgedCodebook(size=16, dim=DIM, groups=4, width=8, depth=1, num_heads=2)
    ),
    "bsq": lambda: BinarySphericalQuantizer(bits=DIM, commitment_weight=0.25),
    "directional": lambda: VectorQuantizer(  # without the noise, which is each rank's own
        codebook=LearnedCodebook(size=16, dim=DIM, init=NormalInit()),
        estimator=DirectionalReparameterisation(variance=0.0),
    ),
    "gumbel": lambda: GumbelQuantizer(size=16, dim=DIM),
    "gumbel-diversity": lambda: GumbelQuantizer(size=16, dim=DIM, diversity_weight=0.1),
    "softmax-diversity": lambda: SoftmaxQuantizer(size=16, dim=DIM, diversity_weight=0.1),
    "ibq": lambda: IndexBackpropagationQuantizer(size=16, dim=DIM, init=NormalInit(std=1.0)),
    "implicit-residual": lambda: ImplicitResidualQuantizer(
        codebooks=[STATEFUL["learned"]() for _ in range(2)], hidden_dim=8, num_blocks=1
    ),
    "lfq": lambda: LookupFreeQuantizer(bits=DIM),
    "scalar-perturbation": lambda: ScalarPerturbationQuantizer(levels=[5] * DIM, perturbation_rate=0.0),
    **{
        f"{wrapper} of {book}": lambda wrap=wrap, make=make: wrap(
            VectorQuantizer(codebook=make(), regularisers=REGULARISERS)
        )
        for (wrapper, wrap), (book, make) in itertools.product(WRAPPERS.items(), STATEFUL.items())
    },
}


def check_that_all_are_here() -> None:
    """What has a state or wraps something is found in the registries, so a new class fails until it is here."""
    wrappers = {
        cls
        for cls in QUANTIZERS.module_dict.values()
        if {"quantizer", "quantizers"} & set(inspect.signature(cls).parameters)
    }
    assert wrappers == {type(wrap(VectorQuantizer.example())) for wrap in WRAPPERS.values()}
    learning = {
        cls
        for cls in CODEBOOKS.module_dict.values()
        if cls.__name__ not in ("BridgedCodebook", "FrozenCodebook", "ProjectedCodebook")
    }
    assert learning == {type(make()) for make in STATEFUL.values()}


def batch(step: int, grid: tuple[int, ...] = ()) -> Tensor:
    return torch.randn(100, *grid, DIM, generator=torch.Generator().manual_seed(step)) + 1


def make(name: str) -> Quantizer:
    torch.manual_seed(0)
    if name in COMPOSITES:
        return COMPOSITES[name]()
    distance = CosineDistance() if name in ("ema-revival", "spherical-ema") else None
    return VectorQuantizer(codebook=BOOKS[name](), distance=distance)


def train(name: str, shard: slice, *, seed: int, compiled: bool = False) -> dict[str, Tensor]:
    quantizer = make(name)
    forward = torch.compile(quantizer, fullgraph=True, backend="eager") if compiled else quantizer
    torch.manual_seed(seed)
    for step in range(STEPS):
        forward(batch(step, quantizer.grid)[shard])
    return quantizer.state_dict()


def train_accumulating(shard: slice) -> dict[str, Tensor]:
    """Each step's shard in three micro-batches, the first of one vector at most."""
    quantizer = make("ema")
    for step in range(STEPS):
        z = batch(step)[shard]
        with accumulate(quantizer):
            quantizer(z[:1])
            quantizer(z[1:11])
        quantizer(z[11:])
    return quantizer.state_dict()


def train_wrapped(shard: slice) -> dict[str, Tensor]:
    """With buffers broadcast before each forward, as DistributedDataParallel does by default."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(DIM, DIM), make("ema-revival"))
    wrapped = nn.parallel.DistributedDataParallel(model) if dist.is_initialized() else model
    for step in range(2):
        out = wrapped(batch(step)[shard])
        (out.loss + out.quantized.sum()).backward()
    return model[1].state_dict()


def train_behind_a_frozen_encoder(shard: slice) -> dict[str, Tensor]:
    """Gradient k-means: no gradient reaches z, the codebook loss alone moves the codes, and unused codes jump."""
    torch.manual_seed(0)
    quantizer = VectorQuantizer(
        codebook=ClusteredCodebook(size=16, dim=DIM, decay=0.9),
        distance=CosineDistance(),
        commitment_weight=0.0,
    )
    wrapped = nn.parallel.DistributedDataParallel(quantizer) if dist.is_initialized() else quantizer
    optimizer = torch.optim.Adam(quantizer.parameters(), lr=0.01)
    for step in range(STEPS):
        optimizer.zero_grad()
        wrapped(batch(step)[shard]).loss.backward()
        optimizer.step()
    return quantizer.state_dict()


def train_masked(name: str, shard: slice, *, seed: int, use_reentrant: bool | None) -> dict[str, Tensor]:
    """Losses, gradients and state of two steps; the mask leaves each rank another part of its vectors."""
    torch.manual_seed(0)
    quantizer, states = LOSSES[name](), {}
    torch.manual_seed(seed)
    mask = (torch.arange(100) % 7 != 0) & (torch.arange(100) > 20)
    for step in range(2):
        z = batch(step, quantizer.grid)[shard].requires_grad_()

        def forward(z: Tensor) -> tuple[Tensor, Tensor]:
            out = quantizer(z, mask[shard])
            return out.quantized, out.loss

        if use_reentrant is None:
            quantized, loss = forward(z)
        else:
            quantized, loss = checkpoint(forward, z, use_reentrant=use_reentrant)
        quantizer.zero_grad()
        # As in a training: the mean over ranks of each rank's gradient.
        size = dist.get_world_size() if dist.is_initialized() else 1
        # The noise of a Gumbel choice is each rank's own, its loss has none.
        task = 0 if name.startswith("gumbel") else quantized[mask[shard]].square().sum()
        (loss + task * size).backward()
        for key, parameter in quantizer.named_parameters():
            gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            states[f"{step} gradient {key}"] = all_reduce_sum(gradient) / size
        states[f"{step} loss"] = loss.detach()
    return states | quantizer.state_dict()


def warm_up(shards: list[slice], *, seed: int) -> dict[str, Tensor]:
    """Collects from one batch or more before a training."""
    quantizer = make("ema-k-means")
    torch.manual_seed(seed)
    codebook_warmup(quantizer, [batch(step)[shard] for step, shard in enumerate(shards)])
    return quantizer.state_dict()


def compare(name: str, state: dict[str, Tensor], expected: dict[str, Tensor] | None) -> None:
    for key, value in state.items():
        where = f"{name}: {key}"
        if expected is not None:
            same = torch.allclose(value, expected[key], atol=1e-9, rtol=1e-9)
            assert same, f"{where}: not that of one process"
        everywhere = all_gather_cat(value.flatten()[None])
        assert (everywhere == everywhere[0]).all(), f"{where} differs between ranks"


def run_rank(rank: int, world_size: int, expected: dict[str, dict[str, Tensor]]) -> None:
    first = sum(SHARDS[world_size][:rank])
    shard = slice(first, first + SHARDS[world_size][rank])
    for name in (*BOOKS, *COMPOSITES):
        # Only rank 0's generator is that of the single process; the others must follow its draws.
        compare(name, train(name, shard, seed=rank), expected[name])
    # On four ranks every sixth, of all wrappers and codebooks, is enough.
    for name, form in list(zip(LOSSES, itertools.cycle([None, False, True, True])))[
        :: 1 if world_size == 2 else 6
    ]:
        compare(name, train_masked(name, shard, seed=rank, use_reentrant=form), expected[name])
    compare("accumulate", train_accumulating(shard), expected["ema"])
    compare("DDP", train_wrapped(shard), expected["DDP"])
    compare("frozen encoder", train_behind_a_frozen_encoder(shard), expected["frozen encoder"])
    compare("warm-up", warm_up([shard], seed=rank), expected["warm-up"])
    # Batches come in another order than in one process, so k-means draws other seeds from the same vectors.
    compare("warm-up of two batches", warm_up([shard] * 2, seed=rank), None)
    if world_size == 2:
        compare("compiled", train("ema-revival", shard, seed=rank, compiled=True), expected["ema-revival"])


def main() -> int:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    whole = slice(0, 100)
    expected = {name: train(name, whole, seed=0) for name in (*BOOKS, *COMPOSITES)}
    check_that_all_are_here()
    expected |= {name: train_masked(name, whole, seed=0, use_reentrant=None) for name in LOSSES}
    expected |= {"DDP": train_wrapped(whole), "warm-up": warm_up([whole], seed=0)}
    expected["frozen encoder"] = train_behind_a_frozen_encoder(whole)
    return run_on_ranks(partial(run_rank, expected=expected), *SHARDS)


if __name__ == "__main__":
    sys.exit(main())
