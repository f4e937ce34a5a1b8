"""The contract of quantizers on a GPU, under autocast of both half-precision types; two cases run on a CPU too."""

import copy

import pytest
import torch
from contract.quantizer_cases import CASES, vectors
from gpu.devices import CUDA

from vq.quantizers import Quantizer, accumulate

ON_CPU = ("LookupFreeQuantizer", "VectorQuantizer-ema-ReplaceDeadCodes")
PLACES = [*(("cpu", name) for name in ON_CPU), *((CUDA.values[0], name) for name in sorted(CASES))]
CASE_AND_DEVICE = pytest.mark.parametrize(
    ("device", "name"),
    [pytest.param(device, name, marks=CUDA.marks if device == "cuda" else ()) for device, name in PLACES],
)


def trained(name: str, device: str) -> Quantizer:
    """Returns the quantizer after one training forward, which runs k-means and moves averages."""
    quantizer = CASES[name]().to(device)
    quantizer(vectors(quantizer, 64).to(device))
    return quantizer


@CASE_AND_DEVICE
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_gives_the_indices_of_the_same_values_in_float32(
    name: str, device: str, dtype: torch.dtype
) -> None:
    quantizer = trained(name, device).eval()
    z = vectors(quantizer, 64).to(device, dtype)
    exact = quantizer(z.float())
    with torch.autocast(device, dtype):
        out, indices = quantizer(z), quantizer.encode(z)
        decoded = quantizer.decode(indices, dtype)
    assert torch.equal(out.indices, exact.indices)
    assert torch.equal(indices, exact.indices)
    assert out.quantized.dtype == decoded.dtype == dtype
    assert torch.equal(out.quantized, exact.quantized.to(dtype))
    assert torch.equal(decoded, out.quantized)
    assert out.loss.dtype == torch.float32


@CASE_AND_DEVICE
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_training_pass_under_autocast_has_finite_gradients_and_state(
    name: str, device: str, dtype: torch.dtype
) -> None:
    quantizer = trained(name, device)
    z = vectors(quantizer, 64).to(device).requires_grad_()
    with torch.autocast(device, dtype):
        out = quantizer(z.to(dtype))
    (out.quantized.float().square().sum() + out.loss).backward()
    assert z.grad is not None
    assert z.grad.isfinite().all()
    assert z.grad.abs().sum() > 0
    assert all(tensor.isfinite().all() for tensor in quantizer.state_dict().values())


@CASE_AND_DEVICE
def test_micro_batches_learn_as_one_large_batch(name: str, device: str) -> None:
    quantizer = trained(name, device)
    one_batch = copy.deepcopy(quantizer)
    batch = vectors(quantizer, 24).to(device)
    torch.manual_seed(1)
    one_batch(batch)
    torch.manual_seed(1)
    with accumulate(quantizer):
        quantizer(batch[:5])
        quantizer(batch[5:12])
    quantizer(batch[12:])
    for key, value in one_batch.state_dict().items():
        torch.testing.assert_close(value, quantizer.state_dict()[key], atol=1e-5, rtol=1e-5, msg=key)
