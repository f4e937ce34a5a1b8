"""Compares Triton kernels, run by Triton's interpreter on the CPU, with float64; prints one JSON object."""

import json
import os
import sys

os.environ["TRITON_INTERPRET"] = "1"  # before triton is imported

import torch

from vq.ops.kernels.nearest import nearest

CASES = [
    (n, size, dim, dtype, by_distance)
    for n, size, dim in (
        (1, 1, 1),
        (5, 2, 3),
        (70, 130, 3),
        (64, 64, 64),
        (130, 300, 100),
        (33, 200, 512),
        (0, 4, 4),
    )
    for dtype in (torch.float32, torch.float16)
    for by_distance in (True, False)
]


def main() -> None:
    """Counts the rows whose code is not one of the best within rounding, and describes special cases."""
    torch.manual_seed(0)
    wrong = []
    for n, size, dim, dtype, by_distance in CASES:
        z, codes = torch.randn(n, dim).to(dtype), torch.randn(size, dim).to(dtype)
        half = codes.float().square().sum(dim=1) / 2 * by_distance
        found = nearest(z, codes, half)
        assert found.dtype == torch.int64
        scores = half.double() - z.double() @ codes.double().T
        chosen = scores.gather(1, found[:, None])[:, 0]
        # A sum of `dim` products in float32, each at most |z| |code|, and one more addition.
        longest = codes.double().norm(dim=1).max()
        bound = 2 * (dim + 2) * 2**-24 * (z.double().norm(dim=1) * longest + half.double().max())
        worse = int((chosen > scores.amin(dim=1) + bound).sum()) if n else 0
        if worse:
            wrong.append([n, size, dim, str(dtype), by_distance, worse])
    ones = torch.ones(200, 4)
    ties = nearest(torch.zeros(3, 4), ones, torch.full((200,), 2.0))
    signed_zeros = nearest(torch.zeros(1, 1), torch.zeros(130, 1), torch.tensor([0.0, -0.0] * 65))
    broken = torch.tensor([[torch.nan], [torch.inf], [-torch.inf], [0.9]])
    not_finite = nearest(broken, torch.tensor([[0.0], [1.0], [2.0]]), torch.tensor([0.0, 0.5, 2.0]))
    json.dump(
        {
            "wrong": wrong,
            "ties": ties.tolist(),
            "signed zeros": signed_zeros.tolist(),
            "not finite": not_finite.tolist(),
        },
        sys.stdout,
    )


if __name__ == "__main__":
    main()
