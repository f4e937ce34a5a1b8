"""Recorded outputs of vector-quantize-pytorch (tests/golden/record_peers.py), where it follows the papers."""

from pathlib import Path

import numpy as np
import pytest
import torch

from vq.ops.digits import reverse_digits
from vq.quantizers import (
    BinarySphericalQuantizer,
    EMACodebook,
    FiniteScalarQuantizer,
    LookupFreeQuantizer,
    NormalInit,
    ResidualFiniteScalarQuantizer,
    VectorQuantizer,
)

FILE = Path(__file__).parents[1] / "golden" / "vector_quantize_pytorch.npz"
BITS = 5


@pytest.fixture(scope="module")
def recorded():
    with np.load(FILE) as file:
        return {name: torch.from_numpy(file[name]) for name in file.files if name != "made_with"}


@pytest.mark.parametrize(
    "levels", [[8, 6, 5], [8, 5, 5, 5], [7, 5, 5, 5, 5], [8, 8, 8, 6, 5], [8, 8, 8, 5, 5, 5]]
)
def test_fsq(recorded, levels):
    name = f"fsq-{'-'.join(map(str, levels))}"
    # The other implementation exceeds the outermost levels by eps; the paper stays eps below them.
    out = FiniteScalarQuantizer(levels=levels, eps=-1e-3)(recorded[f"{name}/z"])
    assert torch.equal(out.quantized, recorded[f"{name}/codes"])
    assert torch.equal(out.indices, recorded[f"{name}/indices"].long())


@pytest.mark.parametrize(
    ("name", "make", "tolerance"),
    [
        (
            "lfq",
            lambda **weights: LookupFreeQuantizer(bits=BITS, temperature=1.0, **weights),
            1e-5,
        ),
        # At this temperature the other implementation's clamp of 1e-5 inside the logarithm is visible.
        (
            "lfq-sharp",
            lambda **weights: LookupFreeQuantizer(
                bits=BITS, temperature=0.01, diversity_weight=2.5, **weights
            ),
            1e-3,
        ),
        (
            "bsq",
            lambda **weights: BinarySphericalQuantizer(
                bits=BITS, temperature=1.0, group_bits=BITS, **weights
            ),
            1e-5,
        ),
    ],
)
def test_lfq_and_bsq(recorded, name, make, tolerance):
    z = recorded[f"{name}/z"].requires_grad_()
    out = make(entropy_weight=0.3, commitment_weight=0.25)(z)
    assert torch.equal(out.indices, reverse_digits(recorded[f"{name}/big_endian_indices"].long(), [2] * BITS))
    torch.testing.assert_close(out.quantized, recorded[f"{name}/codes"])
    for key in ("sample_entropy", "codebook_entropy", "commitment_loss"):
        torch.testing.assert_close(
            out.metrics[key], recorded[f"{name}/{key}"], rtol=tolerance, atol=tolerance
        )
    torch.testing.assert_close(out.loss, recorded[f"{name}/loss"], rtol=tolerance, atol=tolerance)
    out.loss.backward()
    torch.testing.assert_close(z.grad, recorded[f"{name}/z_grad"], rtol=10 * tolerance, atol=tolerance)


def test_ema_vq(recorded):
    quantizer = VectorQuantizer(
        codebook=EMACodebook(size=16, dim=4, decay=0.8, init=NormalInit()), commitment_weight=0.25
    )
    quantizer.codebook.weight.copy_(recorded["ema/codes_before"])
    quantizer.codebook.sums.copy_(recorded["ema/codes_before"])
    for step, z in enumerate(recorded["ema/z"]):
        out = quantizer(z)
        assert torch.equal(out.indices, recorded["ema/indices"][step])
        torch.testing.assert_close(out.loss, recorded["ema/loss"][step])
        torch.testing.assert_close(quantizer.codebook.vectors, recorded["ema/codes_after"][step])


@pytest.mark.parametrize(
    ("levels", "depth"), [([5, 5, 3], 3), ([8, 6, 5], 3), ([8, 5, 5, 5], 4), ([3, 3], 5)]
)
def test_residual_fsq(recorded, levels, depth):
    name = f"residual-fsq-{'-'.join(map(str, levels))}x{depth}"
    out = ResidualFiniteScalarQuantizer(levels=levels, depth=depth)(recorded[f"{name}/z"])
    assert torch.equal(out.indices, recorded[f"{name}/indices"].long())
    torch.testing.assert_close(out.quantized, recorded[f"{name}/codes"], rtol=0, atol=1e-6)
