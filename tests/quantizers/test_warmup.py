"""codebook_warmup: what it changes, what it leaves unchanged, and invalid arguments."""

from itertools import pairwise

import pytest
import torch
from torch import nn

from vq.quantizers import (
    AffineCodebook,
    CosineDistance,
    EMACodebook,
    FiniteScalarQuantizer,
    FrozenCodebook,
    KMeansInit,
    LearnedCodebook,
    NormalInit,
    ProductQuantizer,
    ProjectedCodebook,
    ReplaceUnusedCodes,
    ResidualQuantizer,
    VectorQuantizer,
    codebook_warmup,
)


def model_with(quantizer):
    return nn.Sequential(
        nn.Linear(3, quantizer.codebook_dim), nn.BatchNorm1d(quantizer.codebook_dim), quantizer
    )


def batches(count=6, size=200):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(size, 3, generator=generator) + 2 for _ in range(count)]


def error_of(model):
    model.eval()
    z = model[:2](torch.cat(batches()))
    error = (model[2](z).quantized - z).square().mean().item()
    model.train()
    return error


BOOKS = {
    "learned": lambda: LearnedCodebook(size=16, dim=4),
    "ema": lambda: EMACodebook(size=16, dim=4, revival=ReplaceUnusedCodes()),
    "frozen": lambda: FrozenCodebook(size=16, dim=4),
    "projected": lambda: ProjectedCodebook(size=16, dim=4, init=NormalInit(std=0.01)),
    "affine": lambda: AffineCodebook(codebook=EMACodebook(size=16, dim=4), groups=2),
}


@pytest.mark.parametrize("method", ["k_means", "random", "moments"])
@pytest.mark.parametrize("name", BOOKS)
def test_the_error_falls_and_a_k_means_codebook_is_not_clustered_again(name, method):
    torch.manual_seed(0)
    model = model_with(VectorQuantizer(codebook=BOOKS[name]()))
    book, before = model[2].codebook, error_of(model)
    codebook_warmup(model, batches(), method=method)
    assert error_of(model) < (before if method == "moments" else before / 2)
    assert book.initialised == 1
    placed = book.vectors.detach().clone()
    model[2].codebook.prepare(torch.randn(64, 4) + 50, torch.ones(64, dtype=torch.bool))
    assert torch.equal(book.vectors, placed)


def test_nothing_but_the_codebook_changes():
    torch.manual_seed(0)
    quantizer = VectorQuantizer(codebook=EMACodebook(size=16, dim=4))
    model = model_with(quantizer)
    model[0].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    codebook_warmup(model, batches())
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"2.codebook.weight", "2.codebook.usage", "2.codebook.sums", "2.codebook.initialised"}
    assert [module.training for module in model] == [False, True, True]
    assert not quantizer._forward_pre_hooks
    assert all(parameter.grad is None for parameter in model.parameters())


def test_modes_and_hooks_are_put_back_after_an_error_too():
    quantizer = VectorQuantizer(codebook=LearnedCodebook.example())
    model = model_with(quantizer)
    with pytest.raises(RuntimeError):
        codebook_warmup(model, [torch.randn(5, 7)])
    assert quantizer.training
    assert not quantizer._forward_pre_hooks
    assert model[1].num_batches_tracked == 0


def test_usage_is_what_a_training_step_counts():
    torch.manual_seed(0)
    for max_vectors in (100_000, 300):
        model = model_with(VectorQuantizer(codebook=EMACodebook(size=4, dim=4)))
        codebook_warmup(model, batches(), num_batches=3, max_vectors=max_vectors)
        torch.testing.assert_close(model[2].codebook.usage.sum(), torch.tensor(200.0))


def test_no_more_than_num_batches_are_looked_at_for_each_codebook():
    seen = []
    quantizer = ProductQuantizer(
        quantizers=[VectorQuantizer(codebook=LearnedCodebook(size=4, dim=2)) for _ in range(2)]
    )
    model = model_with(quantizer)
    codebook_warmup(
        model, batches(), num_batches=2, run=lambda batch: (seen.append(len(batch)), model(batch))
    )
    assert len(seen) == 4


def test_each_stage_is_fitted_to_what_the_fitted_stages_before_it_leave_over():
    torch.manual_seed(0)
    stages = [VectorQuantizer(codebook=LearnedCodebook(size=8, dim=4)) for _ in range(3)]
    model = model_with(ResidualQuantizer(quantizers=stages))
    codebook_warmup(model, batches())
    z = model[:2](torch.cat(batches()))
    rest, errors = z, [z.var().item()]
    for stage in stages:
        rest = rest - stage.eval()(rest).quantized
        errors.append(rest.square().mean().item())
    assert all(after < 0.75 * before for before, after in pairwise(errors))


def test_a_shared_stage_is_fitted_to_its_first_call_and_then_to_all():
    torch.manual_seed(0)
    shared = VectorQuantizer(codebook=EMACodebook(size=8, dim=4))
    model, seen = model_with(ResidualQuantizer(quantizers=[shared], depth=2)), []
    only = batches(count=1, size=4)

    def run(batch):
        model(batch)
        seen.append(shared.codebook.weight.clone())

    codebook_warmup(model, only, method="random", run=run)
    z = model[:2](only[0]).detach()
    assert len(seen) == 2
    torch.testing.assert_close(seen[1][:4], z)
    # In the second pass the first stage leaves no residual, and there are as many vectors as codes (8).
    torch.testing.assert_close(shared.codebook.weight[:4], z)
    assert shared.codebook.weight[4:].abs().max() < 1e-6
    assert shared.codebook.usage.sum() >= 8


def test_codes_are_where_the_distance_compares_and_masked_vectors_are_left_out():
    torch.manual_seed(0)
    quantizer = VectorQuantizer(codebook=LearnedCodebook(size=4, dim=3), distance=CosineDistance())
    z, mask = torch.randn(2, 4, 3), torch.tensor([[True, True, False, False]] * 2)
    z[~mask] = torch.nan
    codebook_warmup(quantizer, [z], method="random", run=lambda batch: quantizer(batch, mask=mask))
    expected = torch.nn.functional.normalize(z[mask], dim=-1)
    assert torch.equal(quantizer.codebook.weight, expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "median"}, "expected a method out of k_means, random, moments, got 'median'"),
        ({"num_batches": 0}, "expected positive num_batches and max_vectors, got 0 and 100000"),
        ({"loader": []}, "expected a loader that yields batches each time it is iterated, got none"),
        ({"run": lambda batch: None}, "expected a model that calls its quantizers, got one that called none"),
        ({"model": nn.Linear(3, 4)}, "expected a model with a VectorQuantizer in it, got Linear"),
        (
            {"model": model_with(FiniteScalarQuantizer(levels=[3] * 4))},
            "expected a model with a VectorQuantizer in it, got Sequential",
        ),
    ],
)
def test_invalid_arguments_raise(change, message):
    arguments = {"model": model_with(VectorQuantizer.example()), "loader": batches()} | change
    with pytest.raises(ValueError, match=f"codebook_warmup: {message}"):
        codebook_warmup(**arguments)


@pytest.mark.parametrize("part", [slice(0, 3), slice(2, 3)])
def test_eval_mode_is_refused(part):
    model = model_with(VectorQuantizer.example())
    for module in model[part]:
        module.eval()
    if part.start == 0:
        model.eval()
    with pytest.raises(
        ValueError, match="expected a model in training mode, got one in eval mode; call model"
    ):
        codebook_warmup(model, batches())


def test_a_generator_runs_dry_at_the_second_codebook():
    stages = [VectorQuantizer(codebook=LearnedCodebook(size=8, dim=4, init=KMeansInit())) for _ in range(2)]
    model = model_with(ResidualQuantizer(quantizers=stages))
    with pytest.raises(ValueError, match="a generator can be iterated only once"):
        codebook_warmup(model, iter(batches()))


def test_one_stage_in_eval_mode_is_refused():
    stages = ResidualQuantizer(quantizers=[VectorQuantizer.example() for _ in range(2)])
    model = model_with(stages)
    stages.stages[1].eval()
    with pytest.raises(ValueError, match="expected a model in training mode"):
        codebook_warmup(model, batches())
