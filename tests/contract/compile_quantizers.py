"""Checks that each case compiles to one graph with the results of the uncompiled case; run by the contract test.

The arguments are the names of the cases. Everything is in float64, where the two may differ by sums in another order.
"""

import copy
import sys
import warnings

import torch
from quantizer_cases import CASES, vectors
from torch.utils.checkpoint import checkpoint

from vq.quantizers import Quantizer


def check(quantizer: Quantizer) -> None:
    plain, compiled = quantizer, copy.deepcopy(quantizer)
    forward = torch.compile(compiled, fullgraph=True, backend="aot_eager")
    # The first step initialises codes from data; the second is an ordinary training step.
    for step in range(2):
        z = vectors(plain, 3, 8)
        grads = []
        for run in (plain, forward):
            torch.manual_seed(step)
            leaf = z.clone().requires_grad_()
            out = run(leaf)
            (out.quantized.square().sum() + out.loss).backward()
            grads.append((leaf.grad, out.indices))
        torch.testing.assert_close(*grads, atol=1e-9, rtol=1e-9)
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(compiled.state_dict()[name], value, atol=1e-9, rtol=1e-9, msg=name)
    plain.eval(), compiled.eval()
    z = vectors(plain, 3, 8)
    torch.testing.assert_close(forward(z).quantized, plain(z).quantized, atol=1e-9, rtol=1e-9)
    indices = torch.compile(compiled.encode, fullgraph=True, backend="aot_eager")(z)
    assert torch.equal(indices, plain.encode(z))
    decoded = torch.compile(compiled.decode, fullgraph=True, backend="aot_eager")(indices)
    assert torch.equal(decoded, plain.decode(indices))


def check_that_repeating_is_refused() -> None:
    """A compiled forward cannot tell that activation checkpointing runs it again, so it raises."""
    quantizer = CASES["ResidualQuantizer"]()
    forward = torch.compile(quantizer, fullgraph=True, backend="eager")
    z = vectors(quantizer, 8).requires_grad_()
    forward(z).loss.backward()
    for use_reentrant in (False, True):
        loss = checkpoint(lambda z: forward(z).loss, z, use_reentrant=use_reentrant)
        try:
            loss.backward()
        except RuntimeError as error:
            if "expected a quantizer that is not compiled" not in str(error):
                raise
        else:
            raise AssertionError("a compiled forward was run again and learnt twice")


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    torch.set_default_dtype(torch.float64)
    for name in sys.argv[1:]:
        torch.manual_seed(0)
        torch.compiler.reset()
        try:
            check(CASES[name]())
        except Exception as error:
            raise RuntimeError(f"{name} does not compile to one right graph") from error
        sys.stdout.write(f"{name}\n")
    check_that_repeating_is_refused()
