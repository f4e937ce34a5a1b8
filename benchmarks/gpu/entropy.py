"""Quantizers with sums over all codes, forward and backward: LFQ with its entropies, and index backpropagation."""

import torch
from torch import Tensor

from benchmarks.gpu.nearest import training_step
from benchmarks.gpu.timing import Rows, Side
from vq.ops.entropy import softmax_sums
from vq.quantizers import IndexBackpropagationQuantizer, LookupFreeQuantizer


def lookup_free(bits: int, z: Tensor) -> Side:
    """LFQ with its entropy loss."""
    module = LookupFreeQuantizer(bits=bits).to(z.device)
    return training_step(module, z, lambda out, _: out.quantized.sum() + out.loss)


def peer(bits: int, z: Tensor) -> Side:
    """LFQ of vector-quantize-pytorch."""
    from vector_quantize_pytorch import LFQ

    module = LFQ(codebook_size=2**bits, dim=bits, entropy_loss_weight=0.1, commitment_loss_weight=0.25)
    return training_step(
        module.to(z.device), z[None], lambda out, _: out.quantized.sum() + out.entropy_aux_loss
    )


def index_backpropagation(size: int, dim: int, z: Tensor) -> Side:
    """IBQ, whose gradient passes through the distribution over all codes."""
    module = IndexBackpropagationQuantizer(size=size, dim=dim).to(z.device)
    return training_step(module, z, lambda out, _: out.quantized.square().sum() + out.loss)


def sums(z: Tensor, codes: Tensor) -> Side:
    """The sums of entropies and distributions, with their gradients."""
    bias, weight = torch.zeros(len(codes), device=z.device), torch.ones(len(z), device=z.device)

    def run() -> None:
        leaves = z.clone().requires_grad_(), codes.clone().requires_grad_()
        entropy, distribution = softmax_sums(*leaves, bias, weight)
        (entropy + distribution.square().sum()).backward()

    return run


def materialised(z: Tensor, codes: Tensor) -> Side:
    """The same with the whole matrix of probabilities."""

    def run() -> None:
        leaves = z.clone().requires_grad_(), codes.clone().requires_grad_()
        scores = leaves[0] @ leaves[1].T
        probabilities = scores.softmax(dim=1)
        entropy = -(probabilities * scores.log_softmax(dim=1)).sum()
        (entropy + probabilities.sum(dim=0).square().sum()).backward()

    return run


def main() -> None:
    """Measures every row."""
    rows = Rows(__doc__)
    torch.manual_seed(0)
    n = rows.size(8192, 32)
    for bits in (14, 18):
        some = rows.size(bits, 6)
        z = torch.randn(n, some, device=rows.device)
        rows.measure(
            f"LFQ, N {n}, 2^{some} codes",
            {
                "vq": lambda some=some, z=z: lookup_free(some, z),
                "vector-quantize-pytorch": lambda some=some, z=z: peer(some, z),
            },
            bars={"vector-quantize-pytorch": 5.0} if bits == 14 else {},
        )
    for bits in (14, 18):
        size, dim = rows.size(2**bits, 64), rows.size(256, 8)
        z = torch.randn(rows.size(4096, 32), dim, device=rows.device)
        codes = torch.randn(size, dim, device=rows.device) / dim
        rows.measure(
            f"entropies of a softmax, N {len(z)}, K {size}, D {dim}",
            {
                "vq": lambda z=z, codes=codes: sums(z, codes),
                "materialised": lambda z=z, codes=codes: materialised(z, codes),
            },
        )
        rows.measure(
            f"IBQ, N {len(z)}, K {size}, D {dim}",
            {"vq": lambda size=size, dim=dim, z=z: index_backpropagation(size, dim, z)},
            rounds=5,
        )


if __name__ == "__main__":
    main()
