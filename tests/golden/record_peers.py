"""Records what vector-quantize-pytorch computes, into vector_quantize_pytorch.npz beside this file.

    pip install vector-quantize-pytorch && python tests/golden/record_peers.py

`tests/quantizers/test_peers.py` compares with the arrays; the peer is not needed for that.
"""

import importlib.metadata
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from vector_quantize_pytorch import FSQ, LFQ, ResidualFSQ, VectorQuantize

FSQ_LEVELS = [[8, 6, 5], [8, 5, 5, 5], [7, 5, 5, 5, 5], [8, 8, 8, 6, 5], [8, 8, 8, 5, 5, 5]]
LFQ_CASES = {
    "lfq": {"spherical": False, "inv_temperature": 1.0, "diversity_gamma": 1.0},
    "lfq-sharp": {"spherical": False, "inv_temperature": 100.0, "diversity_gamma": 2.5},
    "bsq": {"spherical": True, "inv_temperature": 1.0, "diversity_gamma": 1.0},
}
RESIDUAL_FSQ = [([5, 5, 3], 3), ([8, 6, 5], 3), ([8, 5, 5, 5], 4), ([3, 3], 5)]
BITS, EMA_STEPS = 5, 3


def record_fsq(levels: list[int]) -> dict[str, Tensor]:
    z = 2 * torch.randn(1, 500, len(levels))
    codes, indices = FSQ(levels)(z)
    name = f"fsq-{'-'.join(map(str, levels))}"
    return {f"{name}/z": z[0], f"{name}/codes": codes[0], f"{name}/indices": indices[0]}


def record_lfq(
    name: str, *, spherical: bool, inv_temperature: float, diversity_gamma: float
) -> dict[str, Tensor]:
    module = LFQ(
        codebook_size=2**BITS,
        dim=BITS,
        spherical=spherical,
        diversity_gamma=diversity_gamma,
        entropy_loss_weight=0.3,
        commitment_loss_weight=0.25,
    )
    z = (0.5 * torch.randn(1, 200, BITS) + 0.1).requires_grad_()
    (codes, indices, loss), parts = module(z, inv_temperature=inv_temperature, return_loss_breakdown=True)
    loss.backward()
    arrays = {
        "z": z[0],
        "codes": codes[0],
        "big_endian_indices": indices[0],
        "loss": loss,
        "z_grad": z.grad[0],
        "sample_entropy": parts.per_sample_entropy,
        "codebook_entropy": parts.batch_entropy,
        "commitment_loss": parts.commitment,
    }
    return {f"{name}/{key}": value for key, value in arrays.items()}


def record_ema() -> dict[str, Tensor]:
    module = VectorQuantize(dim=4, codebook_size=16, decay=0.8, commitment_weight=0.25)
    book = module._codebook
    book.embed.normal_()
    book.embed_avg.copy_(book.embed)
    arrays = {"ema/codes_before": book.embed[0].clone()}
    z = torch.randn(EMA_STEPS, 1, 60, 4)
    results = [(module(batch), book.embed[0].clone()) for batch in z]
    arrays["ema/z"] = z[:, 0]
    arrays["ema/indices"] = torch.stack([out[1][0] for out, _ in results])
    arrays["ema/loss"] = torch.stack([out[2].reshape(()) for out, _ in results])
    arrays["ema/codes_after"] = torch.stack([codes for _, codes in results])
    return arrays


def record_residual_fsq(levels: list[int], depth: int) -> dict[str, Tensor]:
    module = ResidualFSQ(dim=len(levels), levels=levels, num_quantizers=depth).eval()
    z = 1.5 * torch.randn(1, 200, len(levels))
    codes, indices = module(z)
    name = f"residual-fsq-{'-'.join(map(str, levels))}x{depth}"
    return {f"{name}/z": z[0], f"{name}/codes": codes[0], f"{name}/indices": indices[0]}


def main() -> None:
    torch.manual_seed(0)
    arrays: dict[str, Tensor] = {}
    for levels in FSQ_LEVELS:
        arrays |= record_fsq(levels)
    for name, case in LFQ_CASES.items():
        arrays |= record_lfq(name, **case)
    arrays |= record_ema()
    for levels, depth in RESIDUAL_FSQ:
        arrays |= record_residual_fsq(levels, depth)
    versions = {
        package: importlib.metadata.version(package) for package in ("vector-quantize-pytorch", "torch")
    }
    np.savez_compressed(
        Path(__file__).with_name("vector_quantize_pytorch.npz"),
        made_with=np.array([f"{package} {version}" for package, version in versions.items()]),
        **{name: value.detach().numpy() for name, value in arrays.items()},
    )


if __name__ == "__main__":
    main()
