"""The nearest code: the fused kernel against the product of matrices with argmin, and vector-quantize-pytorch."""

import os
from collections.abc import Callable
from unittest import mock

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.gpu.timing import Rows, Side
from vq.ops.distance import nearest_code
from vq.ops.kernels import VARIABLE
from vq.quantizers import LearnedCodebook, NormalInit, VectorQuantizer


def materialised(z: Tensor, codes: Tensor) -> Tensor:
    """What a library would do: one product, then the argmin of the whole matrix."""
    return (codes.square().sum(dim=1) / 2 - z @ codes.T).argmin(dim=1)


def eager(z: Tensor, codes: Tensor) -> Callable[[], Side]:
    """Our search without the kernel, in tiles."""

    def run() -> None:
        with mock.patch.dict(os.environ, {VARIABLE: "eager"}):
            nearest_code(z, codes)

    return lambda: run


def halves(z: Tensor, codes: Tensor) -> Callable[[], Side]:
    """Our search among vectors and codes in bfloat16, which it compares in float32."""
    half_z, half_codes = z.bfloat16(), codes.bfloat16()
    return lambda: lambda: nearest_code(half_z, half_codes)


def training_step(module: torch.nn.Module, z: Tensor, loss: Callable[[object, Tensor], Tensor]) -> Side:
    """Forward and backward of a quantizer."""

    def run() -> None:
        leaf = z.clone().requires_grad_()
        module.zero_grad(set_to_none=True)
        loss(module(leaf), leaf).backward()

    return run


def peer(size: int, dim: int, z: Tensor) -> Side:
    """vector-quantize-pytorch with a learned codebook."""
    from vector_quantize_pytorch import VectorQuantize

    module = VectorQuantize(dim=dim, codebook_size=size, learnable_codebook=True, ema_update=False).to(
        z.device
    )
    return training_step(module, z[None], lambda out, _: out[0].square().mean() + out[2].sum())


def taming(size: int, dim: int, z: Tensor) -> Side:
    """VQGAN's own module, which takes grids of 8 x 8 vectors."""
    from taming.modules.vqvae.quantize import VectorQuantizer2

    grids = z.view(-1, 8, 8, dim).permute(0, 3, 1, 2).contiguous()
    module = VectorQuantizer2(size, dim, beta=0.25).to(z.device)
    return training_step(module, grids, lambda out, _: out[0].square().mean() + out[1])


def ours(size: int, dim: int, z: Tensor) -> Side:
    """The same with our quantizer."""
    codebook = LearnedCodebook(size=size, dim=dim, init=NormalInit())
    module = VectorQuantizer(codebook=codebook, commitment_weight=0.25).to(z.device)
    return training_step(module, z, lambda out, _: out.quantized.square().mean() + out.loss)


def main() -> None:
    """Measures every row."""
    rows = Rows(__doc__)
    n = rows.size(8192, 64)
    for size in (16384, 262144):
        for dim in (8, 256):
            few = rows.size(size, 128)
            torch.manual_seed(0)
            z, codes = torch.randn(n, dim, device=rows.device), torch.randn(few, dim, device=rows.device)
            compiled = torch.compile(materialised) if not rows.is_small else materialised
            rows.measure(
                f"search, N {n}, K {few}, D {dim}",
                {
                    "vq": lambda z=z, codes=codes: lambda: nearest_code(z, codes),
                    "product + argmin, compiled": lambda z=z, codes=codes, f=compiled: lambda: f(z, codes),
                    "vq, eager tiles": eager(z, codes),
                    "vq, bfloat16": halves(z, codes),
                },
                bars={"product + argmin, compiled": 1.5},
                facts={"GFLOP": 2e-9 * n * few * dim},
                most_mib=1024,
            )
            rows.measure(
                f"forward and backward, N {n}, K {few}, D {dim}",
                {
                    "vq": lambda few=few, dim=dim, z=z: ours(few, dim, z),
                    "vector-quantize-pytorch": lambda few=few, dim=dim, z=z: peer(few, dim, z),
                    "taming": lambda few=few, dim=dim, z=z: taming(few, dim, z),
                },
                bars={"vector-quantize-pytorch": 3.0},
            )
            agreement(rows, z, codes)


def agreement(rows: Rows, z: Tensor, codes: Tensor) -> None:
    """Compares chosen distances with those of float64."""
    title = f"distance against float64, K {len(codes)}, D {z.shape[1]}"
    if title in rows.found:
        return
    some = z[:256]
    found = nearest_code(some, codes)
    chosen = (some.double() - codes[found].double()).square().sum(dim=1)
    best = torch.cdist(some.double(), codes.double()).square().amin(dim=1)
    excess = float(((chosen - best) / F.threshold(best, 1e-9, 1e-9)).max())
    rows.keep(title, {"facts": {"largest relative excess": excess}, "bars": {}})


if __name__ == "__main__":
    main()
