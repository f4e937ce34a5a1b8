"""Run by test_entropy_ranks.py: entropies on ranks with uneven shards are those of one process, gradients too.

Everything is in float64, where sums of a hundred terms in another order differ by about 1e-15 on any processor.

The ranks are forked from this process after it has computed what one process does.
"""

import sys
import warnings
from collections.abc import Callable
from functools import partial

import torch
import torch.distributed as dist
from forked_ranks import run_on_ranks
from torch import Tensor, nn

from vq.distributed import all_reduce_sum, world_size
from vq.quantizers import BinarySphericalQuantizer, EntropyRegulariser, LookupFreeQuantizer, Quantizer

BITS = 6
SHARDS = {2: [70, 30], 4: [50, 0, 49, 1]}
"""How many of the 100 vectors each rank has; one rank may have none."""

QUANTIZERS: dict[str, Callable[[], Quantizer]] = {
    "LFQ": lambda: LookupFreeQuantizer(bits=BITS, temperature=0.5),
    "LFQ grouped": lambda: LookupFreeQuantizer(bits=BITS, temperature=0.5, group_bits=4),
    "BSQ": lambda: BinarySphericalQuantizer(bits=BITS, commitment_weight=0.25),
}

Results = dict[str, Tensor]


def batch() -> Tensor:
    return torch.randn(100, BITS, generator=torch.Generator().manual_seed(0))


def of_quantizer(name: str, shard: slice, *, compiled: bool = False) -> Results:
    quantizer = QUANTIZERS[name]()
    forward = torch.compile(quantizer, fullgraph=True, backend="eager") if compiled else quantizer
    z = batch()[shard].requires_grad_()
    out = forward(z)
    out.loss.backward()
    assert z.grad is not None
    # DistributedDataParallel would divide by the number of ranks what reaches the parameters.
    return {"loss": out.loss.detach(), "z.grad": z.grad / world_size(), **out.metrics}


def of_codebook(shard: slice) -> Results:
    codes = torch.randn(20, BITS, generator=torch.Generator().manual_seed(1)).requires_grad_()
    z = batch()[shard].requires_grad_()
    indices = torch.zeros(len(z), dtype=torch.int64)
    loss, metrics = EntropyRegulariser(temperature=2.0)(z, codes, indices, across_ranks=True)
    loss.backward()
    assert z.grad is not None
    assert codes.grad is not None
    codes_grad = all_reduce_sum(codes.grad) / world_size()
    return {"loss": loss.detach(), "z.grad": z.grad / world_size(), "codes.grad": codes_grad, **metrics}


def of_wrapped(shard: slice) -> Results:
    """The gradient that DistributedDataParallel gives the encoder."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(BITS, BITS), QUANTIZERS["LFQ"]())
    wrapped = nn.parallel.DistributedDataParallel(model) if dist.is_initialized() else model
    wrapped(batch()[shard]).loss.backward()
    return {name: value.grad for name, value in model.named_parameters() if value.grad is not None}


def compare(name: str, results: Results, expected: Results, shard: slice) -> None:
    assert results.keys() == expected.keys()
    for key, value in results.items():
        wanted = expected[key][shard] if key == "z.grad" else expected[key]
        assert torch.allclose(value, wanted, atol=1e-9, rtol=1e-9), (
            f"{name}: {key} is not that of one process"
        )


def run_rank(rank: int, size: int, expected: dict[str, Results]) -> None:
    first = sum(SHARDS[size][:rank])
    shard = slice(first, first + SHARDS[size][rank])
    for name in QUANTIZERS:
        compare(name, of_quantizer(name, shard), expected[name], shard)
    compare("codebook", of_codebook(shard), expected["codebook"], shard)
    compare("DDP", of_wrapped(shard), expected["DDP"], shard)
    if size == 2:
        compare("compiled", of_quantizer("LFQ", shard, compiled=True), expected["LFQ"], shard)
    if rank == 0:  # eval waits for nobody: the other ranks do not take part
        QUANTIZERS["LFQ"]().eval()(batch()[shard])


def main() -> int:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    whole = slice(0, 100)
    expected = {name: of_quantizer(name, whole) for name in QUANTIZERS}
    expected |= {"codebook": of_codebook(whole), "DDP": of_wrapped(whole)}
    return run_on_ranks(partial(run_rank, expected=expected), *SHARDS)


if __name__ == "__main__":
    sys.exit(main())
