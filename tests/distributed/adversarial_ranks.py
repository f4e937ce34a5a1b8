"""Run by test_adversarial_ranks.py: an adversarial step on two ranks moves both networks as one process does.

Everything is in float64, and SGD hands rounding on without enlarging it: 1e-9 is far above what sums in another
order differ by on any processor, and far below any wrong mean.

Both ranks are forked from this process after it has computed what one process does.
"""

import sys
import warnings
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from forked_ranks import run_on_ranks
from torch import Tensor, nn

from vq.distributed import world_size
from vq.engine import AdversarialStep, Adversary, Constant
from vq.layers.batch_norm import SyncedBatchNorm2d
from vq.losses import HingeObjective, L1Loss, LeCAMPenalty, R1Penalty
from vq.networks import PatchDiscriminator, StridedCNNDecoder, StridedCNNEncoder
from vq.quantizers import EMACodebook, NormalInit, VectorQuantizer
from vq.tokenizers import ImageTokenizer

SIZE = 2
BATCH = 8
STEPS = 4
Results = dict[str, Tensor]


def features() -> Tensor:
    return torch.randn(BATCH, 3, 4, 4, generator=torch.Generator().manual_seed(0)) + 2


def of_batch_norm(shard: slice) -> Results:
    """Outputs, first and second derivatives of a loss over the whole batch."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), SyncedBatchNorm2d(channels=4), nn.Tanh(), nn.Conv2d(4, 1, 2))
    x = features()[shard].requires_grad_()
    out = net(x)
    (gradient,) = torch.autograd.grad(out.square().sum(), x, create_graph=True)
    gradient.square().sum().backward()
    grads = {
        n: p.grad if world_size() == 1 else _sum(p.grad)
        for n, p in net.named_parameters()
        if p.grad is not None
    }
    buffers = {n: b.double() for n, b in net.named_buffers()}
    return {"out.shard": out.detach(), "gradient.shard": gradient.detach(), **grads, **buffers}


def _sum(x: Tensor) -> Tensor:
    total = x.clone()
    dist.all_reduce(total)
    return total


def make_step(accumulate: int) -> AdversarialStep:
    torch.manual_seed(0)
    codebook = EMACodebook(size=16, dim=4, init=NormalInit())
    tokenizer = ImageTokenizer(
        encoder=StridedCNNEncoder(widths=(8, 8)),
        quantizer=VectorQuantizer(codebook=codebook),
        decoder=StridedCNNDecoder(widths=(8, 8)),
    ).train()
    # Batch norm must agree between ranks; between micro-batches it cannot.
    discriminator = PatchDiscriminator(base_width=4, depth=1, norm="batch" if accumulate == 1 else "group")
    adversary = Adversary(
        discriminator=discriminator,
        objective=HingeObjective(),
        optimizer=torch.optim.SGD(discriminator.parameters(), lr=0.01),
        schedule=Constant(),
        start_step=1,
        penalties={"r1": R1Penalty(every=2), "lecam": LeCAMPenalty()},
        weights={"objective": 1.0, "r1": 0.1, "lecam": 0.1},
        max_gradient_norm=0.5,
    )
    return AdversarialStep(
        tokenizer=tokenizer,
        losses={"l1": L1Loss()},
        weights={"l1": 1.0, "quantizer": 1.0, "adversarial": 0.8},
        adversary=adversary,
        optimizer=torch.optim.SGD(tokenizer.parameters(), lr=0.01),
        schedule=Constant(),
        max_gradient_norm=1.0,
        accumulate=accumulate,
    )


def of_step(rank: int, size: int, accumulate: int) -> Results:
    """The weights of both networks after a few steps over the same images."""
    step, numbers = make_step(accumulate), torch.Generator().manual_seed(1)
    for i in range(STEPS):
        images = torch.randint(0, 256, (BATCH, 3, 16, 16), generator=numbers, dtype=torch.uint8)
        local = images.chunk(size)[rank].chunk(accumulate)
        batches: list[Any] = [{"image": part} for part in local]
        scalars = step(batches, i)
    tensors = {f"tokenizer.{n}": t for n, t in step.tokenizer.state_dict().items()}
    tensors |= {f"discriminator.{n}": t for n, t in step.adversary.discriminator.state_dict().items()}
    tensors["anchors"] = step.adversary.penalties["lecam"].get_buffer("anchors")
    tensors["adversarial_weight"] = scalars["adversarial_weight"]
    return {n: t.detach().clone().double() for n, t in tensors.items()}


def compare(name: str, results: Results, expected: Results, shard: slice) -> None:
    assert results.keys() == expected.keys()
    for key, value in results.items():
        wanted = expected[key][shard] if key.endswith(".shard") else expected[key]
        torch.testing.assert_close(
            value,
            wanted,
            atol=1e-9,
            rtol=1e-9,
            msg=lambda m, k=key: f"{name}: {k} is not that of one process: {m}",
        )


def run_rank(rank: int, size: int, expected: dict[str, Results]) -> None:
    local = BATCH // SIZE
    shard = slice(rank * local, (rank + 1) * local)
    compare("batch norm", of_batch_norm(shard), expected["batch norm"], shard)
    for accumulate in (1, 2):
        compare(f"step {accumulate}", of_step(rank, SIZE, accumulate), expected[f"step {accumulate}"], shard)


def main() -> int:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    expected = {"batch norm": of_batch_norm(slice(0, BATCH))}
    expected |= {f"step {accumulate}": of_step(0, 1, accumulate) for accumulate in (1, 2)}
    return run_on_ranks(partial(run_rank, expected=expected), SIZE)


if __name__ == "__main__":
    sys.exit(main())
