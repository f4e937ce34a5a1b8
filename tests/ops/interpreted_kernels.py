"""Compares Triton kernels, run by Triton's interpreter on the CPU, with float64; prints one JSON object."""

import json
import os
import sys

os.environ["TRITON_INTERPRET"] = "1"  # before triton is imported

import torch

from vq.ops.kernels.nearest import nearest
from vq.ops.kernels.scaled_product import scaled_product
from vq.ops.kernels.softmax import softmax_sums, softmax_sums_backward

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


SOFTMAX_CASES = [
    (1, 1, 1, 1.0), (5, 2, 3, 1.0), (40, 130, 3, 5.0), (33, 70, 100, 1.0), (33, 70, 18, 30.0), (0, 4, 4, 1.0),
]  # fmt: skip


def errors_of_softmax(n: int, size: int, dim: int, scale: float) -> list[float]:
    """The largest error of each result, as a multiple of what the rounding of the scores explains."""
    arguments = torch.randn(n, dim) * scale, torch.randn(size, dim), torch.randn(size), torch.rand(n)
    grads = torch.randn(size + 1)
    found = (*softmax_sums(*arguments), *softmax_sums_backward(grads, *arguments))
    z, codes, bias = (x.double().requires_grad_() for x in arguments[:3])
    weight = arguments[3].double()
    scores = z @ codes.T + bias
    probabilities = scores.softmax(dim=1)
    entropy = weight @ -(probabilities * scores.log_softmax(dim=1)).sum(dim=1)
    distribution = weight @ probabilities
    loss = entropy * grads[0].double() + distribution @ grads[1:].double()
    expected = (entropy, distribution, *torch.autograd.grad(loss, (z, codes, bias)))
    if n == 0:
        return [float(each.abs().sum()) for each in found]
    # Scores have an error of at most (dim + 2) eps |z| |e|, which is the relative error of probabilities. Those of logs
    # of probabilities are as large; a factor of 4 is left for the sums.
    largest = float(
        arguments[0].norm(dim=1).max() * arguments[1].norm(dim=1).max() + arguments[2].abs().max()
    )
    rounding = (dim + 2) * 2**-24 * largest
    return [
        float((mine - other.detach()).abs().max() / (rounding * other.detach().abs().max().clamp_min(0.01)))
        for mine, other in zip(found, expected, strict=True)
    ]


def errors_of_scaled_products() -> list[float]:
    """The largest error for each size and type of weights, as a multiple of what rounding in float32 explains."""
    errors = []
    for n, size, dim in ((1, 1, 1), (8, 40, 100), (70, 33, 300)):
        for dtype in (torch.int8, torch.float8_e4m3fn):
            x, scale = torch.randn(n, dim), torch.rand(size) + 0.1
            weight = (40 * torch.randn(size, dim)).clamp(-127, 127).to(dtype)
            exact, lengths = weight.double() * scale[:, None], x.double().abs()
            off = (scaled_product(x, weight, scale) - x.double() @ exact.T).abs()
            errors.append(float((off / ((dim + 2) * 2**-24 * (lengths @ exact.abs().T))).max()))
    return errors


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
            "scaled products": errors_of_scaled_products(),
            "softmax": {str(case): errors_of_softmax(*case) for case in SOFTMAX_CASES},
        },
        sys.stdout,
    )


if __name__ == "__main__":
    main()
