"""The contract of all quantizers. New classes in the package are found and tested automatically."""

import copy
import io
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from quantizer_cases import CASES, example_of, found_classes, vectors
from torch import Tensor

from vq.quantizers import Codebook, Quantizer, accumulate
from vq.registry import CODEBOOKS, QUANTIZERS


@pytest.fixture(params=sorted(CASES))
def quantizer(request: pytest.FixtureRequest) -> Quantizer:
    """Returns the quantizer in eval mode after one training forward, which runs k-means and moves averages."""
    torch.manual_seed(0)
    made = CASES[request.param]()
    made(vectors(made, 64))
    return made.eval()


@pytest.fixture(params=sorted(CASES))
def untrained(request: pytest.FixtureRequest) -> Quantizer:
    torch.manual_seed(0)
    return CASES[request.param]()


def state_of(quantizer: Quantizer) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in quantizer.state_dict().items()}


def assert_same_state(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    assert a.keys() == b.keys()
    for name, value in a.items():
        assert torch.equal(value, b[name]), name


@pytest.mark.parametrize("base", [Quantizer, Codebook])
def test_every_class_has_an_example_and_is_registered(base: type) -> None:
    registry = QUANTIZERS if base is Quantizer else CODEBOOKS
    assert len(found_classes(base)) >= 2
    for cls in found_classes(base):
        assert type(example_of(cls)) is cls
        assert cls in registry.module_dict.values(), f"{cls.__name__} is not registered"


@pytest.mark.parametrize("lead", [(6,), (2, 5), (2, 3, 4), ()])
def test_shapes_types_and_ranges(quantizer: Quantizer, lead: tuple[int, ...]) -> None:
    out = quantizer(vectors(quantizer, *lead))
    assert out.quantized.shape == (*lead, *quantizer.grid, quantizer.codebook_dim)
    assert out.indices.shape == (*lead, *quantizer.index_shape)
    assert out.indices.dtype == torch.int64
    assert out.indices.min() >= 0
    assert out.indices.max() < quantizer.codebook_size
    assert out.loss.shape == ()
    assert out.loss.isfinite()
    assert all(value.shape == () and not value.requires_grad for value in out.metrics.values())


def test_leading_axes_do_not_matter(quantizer: Quantizer) -> None:
    z = vectors(quantizer, 2, 3)
    assert torch.equal(quantizer(z).indices.flatten(0, 1), quantizer(z.flatten(0, 1)).indices)


def test_a_permuted_batch_gives_permuted_indices(quantizer: Quantizer) -> None:
    z, order = vectors(quantizer, 50), torch.randperm(50)
    assert torch.equal(quantizer(z[order]).indices, quantizer(z).indices[order])


def test_a_strided_z_is_read_as_its_values(quantizer: Quantizer) -> None:
    z = vectors(quantizer, 3, 2).mT.contiguous().mT.transpose(0, 1)
    assert torch.equal(quantizer(z).quantized, quantizer(z.contiguous()).quantized)


@pytest.mark.parametrize("training", [False, True])
def test_decode_of_encode_is_the_quantized_vector_bit_for_bit(quantizer: Quantizer, training: bool) -> None:
    z = vectors(quantizer, 7, 9)
    decoded = quantizer.decode(quantizer.encode(z))
    assert torch.equal(decoded, quantizer(z).quantized)
    assert torch.equal(quantizer.encode(z), quantizer(z).indices)
    if training:  # encode and decode give the same results in both modes
        quantizer.train()
        assert torch.equal(quantizer.decode(quantizer.encode(z)), decoded)


def test_the_codes_are_all_different(quantizer: Quantizer) -> None:
    if any(isinstance(part, Codebook) for part in quantizer.modules()):
        pytest.skip("a codebook may hold equal codes")
    if quantizer.index_shape:
        pytest.skip("stages and parts repeat digits; those of a grid have their own test")
    codes = quantizer.decode(torch.arange(quantizer.codebook_size))
    assert len(codes.unique(dim=0)) == quantizer.codebook_size


def test_a_finite_gradient_reaches_z(untrained: Quantizer) -> None:
    z = vectors(untrained, 32).requires_grad_()
    out = untrained(z)
    (out.quantized * torch.randn_like(out.quantized)).sum().backward()
    assert z.grad is not None
    assert z.grad.isfinite().all()
    assert (z.grad.flatten(1).abs().sum(dim=-1) > 0).all()


def test_a_gradient_reaches_every_parameter(untrained: Quantizer) -> None:
    out = untrained(vectors(untrained, 32).requires_grad_())
    (out.loss + out.quantized.square().sum()).backward()
    for name, parameter in untrained.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name


def test_only_a_training_forward_changes_state(untrained: Quantizer) -> None:
    z = vectors(untrained, 16)
    before = state_of(untrained)
    untrained.decode(untrained.encode(z))
    assert_same_state(before, state_of(untrained))
    untrained.eval()
    untrained(z)
    untrained.decode(untrained.encode(z))
    assert_same_state(before, state_of(untrained))


def test_nothing_waits_for_the_device_or_is_made_on_another_one(untrained: Quantizer) -> None:
    """The meta device has no values and cannot be mixed with the CPU, so the test needs no GPU."""
    untrained.to("meta")
    z = vectors(untrained, 8).to("meta").requires_grad_()
    for _ in range(2):  # the first forward of some quantizers also initialises codes
        out = untrained(z)
    results = [
        out.quantized,
        out.indices,
        out.loss,
        *out.metrics.values(),
        untrained.eval().decode(out.indices),
    ]
    assert {tensor.device.type for tensor in results} == {"meta"}
    (out.quantized.sum() + out.loss).backward()
    assert z.grad is not None


def test_eval_twice_is_the_same(quantizer: Quantizer) -> None:
    z = vectors(quantizer, 16)
    assert torch.equal(quantizer(z).quantized, quantizer(z).quantized)


def test_encode_has_no_gradient(quantizer: Quantizer) -> None:
    assert not quantizer.encode(vectors(quantizer, 3).requires_grad_()).requires_grad


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_gives_the_indices_of_the_same_values_in_float32(
    quantizer: Quantizer, dtype: torch.dtype
) -> None:
    z = vectors(quantizer, 64).to(dtype)
    exact = quantizer(z.float())
    with torch.autocast("cpu", torch.bfloat16):
        out, indices = quantizer(z), quantizer.encode(z)
    assert torch.equal(out.indices, exact.indices)
    assert torch.equal(indices, exact.indices)
    assert out.quantized.dtype == dtype
    assert torch.equal(out.quantized, exact.quantized.to(dtype))
    assert out.loss.dtype == torch.float32


def test_float64_stays_float64(quantizer: Quantizer) -> None:
    z = vectors(quantizer, 64, dtype=torch.float64)
    out = quantizer(z)
    assert out.quantized.dtype == torch.float64
    torch.testing.assert_close(out.quantized.float(), quantizer.decode(out.indices))
    assert torch.equal(quantizer.double()(z).indices, out.indices)


def test_a_module_in_half_precision_still_runs(quantizer: Quantizer) -> None:
    out = quantizer.bfloat16().train()(vectors(quantizer, 64).bfloat16())
    assert out.quantized.dtype == torch.bfloat16
    assert out.quantized.isfinite().all()


def test_state_dict_round_trip(quantizer: Quantizer, request: pytest.FixtureRequest) -> None:
    file = io.BytesIO()
    torch.save(quantizer.state_dict(), file)
    file.seek(0)
    case = request.node.callspec.params["quantizer"]
    fresh = CASES[case]()
    fresh.load_state_dict(torch.load(file, weights_only=True))
    z = vectors(quantizer, 20)
    assert torch.equal(fresh.eval()(z).quantized, quantizer(z).quantized)
    # One more training step of both is the same: no state is missing, and k-means does not run again.
    results = []
    for each in (quantizer, fresh):
        torch.manual_seed(1)
        results.append(each.train()(z).quantized)
    assert torch.equal(*results)
    assert_same_state(state_of(quantizer), state_of(fresh))


def test_copy_and_pickle(untrained: Quantizer) -> None:
    z = vectors(untrained, 20)
    copies = [copy.deepcopy(untrained), pickle.loads(pickle.dumps(untrained))]
    torch.manual_seed(1)
    expected = untrained(z).quantized
    for one in copies:
        torch.manual_seed(1)
        assert torch.equal(one(z).quantized, expected)
        assert_same_state(state_of(one), state_of(untrained))


def test_accumulated_micro_batches_learn_as_one_large_batch(quantizer: Quantizer) -> None:
    quantizer.train()
    one_batch = copy.deepcopy(quantizer)
    batch = vectors(quantizer, 24)
    torch.manual_seed(1)
    one_batch(batch)
    before = state_of(quantizer)
    torch.manual_seed(1)
    with accumulate(quantizer):
        quantizer(batch[:5])
        if not any(book.revival for book in quantizer.modules() if isinstance(book, Codebook)):
            assert_same_state(before, state_of(quantizer))
        quantizer(batch[5:12])
    quantizer(batch[12:])
    for name, value in one_batch.state_dict().items():
        torch.testing.assert_close(value, quantizer.state_dict()[name], atol=1e-6, rtol=1e-5, msg=name)


def test_masked_positions_are_neither_counted_nor_learnt_from(untrained: Quantizer) -> None:
    unpadded = copy.deepcopy(untrained)
    z = vectors(untrained, 30)
    padding = torch.full_like(z[:10], torch.nan)
    padded = torch.cat([z[:12], padding, z[12:]]).requires_grad_()
    mask = torch.ones(40, dtype=torch.bool)
    mask[12:22] = False
    torch.manual_seed(1)
    out = untrained(padded.unflatten(0, (4, 10)), mask.view(4, 10))
    torch.manual_seed(1)
    expected = unpadded(z)
    torch.testing.assert_close(out.loss, expected.loss)
    assert torch.equal(out.indices.flatten(0, 1)[mask], expected.indices)
    for name, value in unpadded.state_dict().items():
        torch.testing.assert_close(untrained.state_dict()[name], value, msg=name)
    if out.loss.requires_grad:
        out.loss.backward()
        assert padded.grad is not None
        assert padded.grad.isfinite().all()
        assert padded.grad[~mask].abs().sum() == 0


def test_a_fully_masked_batch_changes_nothing(quantizer: Quantizer) -> None:
    before = state_of(quantizer)
    out = quantizer.train()(vectors(quantizer, 5), torch.zeros(5, dtype=torch.bool))
    assert out.loss.item() == 0
    assert_same_state(before, state_of(quantizer))


def test_an_empty_batch_gives_empty_results(quantizer: Quantizer) -> None:
    before = state_of(quantizer)
    out = quantizer.train()(vectors(quantizer, 0, 3))
    assert out.quantized.shape == (0, 3, *quantizer.grid, quantizer.codebook_dim)
    assert out.indices.shape == (0, 3, *quantizer.index_shape)
    assert out.loss.item() == 0
    assert_same_state(before, state_of(quantizer))
    assert quantizer.decode(quantizer.encode(vectors(quantizer, 0))).shape[0] == 0


def test_nan_shows_in_the_output_and_harms_no_state(quantizer: Quantizer) -> None:
    quantizer.train()
    clean = copy.deepcopy(quantizer)
    z = vectors(quantizer, 20)
    broken = torch.cat([z, torch.full_like(z[:1], torch.nan)])
    torch.manual_seed(1)
    out = quantizer(broken)
    assert not (out.loss.isfinite() and out.quantized.isfinite().all())
    assert out.indices.min() >= 0
    assert out.indices.max() < quantizer.codebook_size
    torch.manual_seed(1)
    clean(z)
    for name, value in clean.state_dict().items():
        torch.testing.assert_close(quantizer.state_dict()[name], value, msg=name)


@pytest.mark.parametrize("value", [torch.inf, -torch.inf, 1e4, -1e4, 1e30])
def test_huge_and_infinite_values_keep_indices_and_state_in_order(quantizer: Quantizer, value: float) -> None:
    out = quantizer.train()(torch.full_like(vectors(quantizer, 3), value))
    assert out.indices.min() >= 0
    assert out.indices.max() < quantizer.codebook_size
    if abs(value) < 1e30:
        assert out.quantized.isfinite().all()
    assert all(t.isfinite().all() for t in quantizer.state_dict().values())


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_encode_refuses_values_that_are_not_finite(quantizer: Quantizer, value: float) -> None:
    z = vectors(quantizer, 2)
    z.view(-1)[-1] = value
    with pytest.raises(ValueError, match=r"encode: expected finite z, got 1 values that are NaN or infinite"):
        quantizer.encode(z)


def test_a_wrong_last_axis_is_refused(quantizer: Quantizer) -> None:
    wrong = torch.randn(3, *quantizer.grid, quantizer.codebook_dim + 1)
    with pytest.raises(
        ValueError, match=r"expected z with the last axis \d+ \(codebook_dim\), got the shape"
    ):
        quantizer(wrong)
    with pytest.raises(ValueError, match="the code axis must come last"):
        quantizer.encode(wrong)


def test_a_wrong_mask_is_refused(quantizer: Quantizer) -> None:
    with pytest.raises(ValueError, match=r"expected a mask of the shape \(3,\), the leading axes of z"):
        quantizer(vectors(quantizer, 3), torch.ones(4, dtype=torch.bool))


@pytest.mark.parametrize("wrong", [-1, "size"])
def test_an_index_out_of_range_is_refused(quantizer: Quantizer, wrong: int | str) -> None:
    value = quantizer.codebook_size if wrong == "size" else wrong
    indices = torch.full((2, *quantizer.index_shape), value)
    with pytest.raises(ValueError, match=r"decode: expected indices in \[0, \d+\), got"):
        quantizer.decode(indices)


@pytest.mark.slow
def test_every_case_compiles_to_one_graph_in_training_and_eval() -> None:
    names = sorted(CASES)
    # A separate process, because the run-time type checks of this test session would break the graphs.
    script = Path(__file__).with_name("compile_quantizers.py")
    result = subprocess.run(
        [sys.executable, script, *names],
        env=os.environ | {"PYTHONPATH": str(script.parents[2])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.split() == names
