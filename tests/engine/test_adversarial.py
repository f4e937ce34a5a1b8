"""One adversarial step: one forward, two sides that do not reach into each other, one weight for the whole batch."""

import copy
import logging
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import pytest
import torch
from commands import TINY

from vq import config
from vq.data import Batch
from vq.engine import AdversarialStep, assembly
from vq.errors import ConfigError
from vq.ops.images import to_signed_unit

Make = Callable[..., AdversarialStep]
SGD = {"type": "torch.optim.SGD", "lr": 0.002}
NORMAL = {"tokenizer__quantizer__codebook__init": {"type": "vq.quantizers.NormalInit"}}


def adversary(**changes: Any) -> dict[str, Any]:
    patch = {"type": "PatchDiscriminator", "base_width": 8, "depth": 1, "norm": "group"}
    return {
        "type": "Adversary",
        "discriminator": patch,
        "objective": {"type": "HingeObjective"},
        "optimizer": {"type": "torch.optim.Adam", "lr": 1e-3, "betas": [0.5, 0.9]},
        **changes,
    }


@pytest.fixture
def make(tree: Callable[..., dict[str, Any]]) -> Make:
    def make_one(adversary: dict[str, Any], step: dict[str, Any] | None = None, **overrides: Any) -> Any:
        loaded = tree(**overrides)
        loaded["train_step"] |= {
            "type": "AdversarialStep",
            "adversary": adversary,
            "weights": {"l1": 1.0, "quantizer": 1.0, "adversarial": 0.8},
            **(step or {}),
        }
        return assembly.make_step(loaded, assembly.make_tokenizer(loaded, seed=1).train())

    return make_one


def batches(micro_batches: int = 1) -> Iterator[Batch]:
    loader = assembly.make_loader(config.load(TINY).to_dict(), "train_data")
    return loader.train_batches(seed=0, micro_batches=micro_batches)


def changed(before: dict[str, torch.Tensor], module: torch.nn.Module) -> bool:
    return any(not torch.equal(before[n], p) for n, p in module.named_parameters())


def weights_of(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {n: p.detach().clone() for n, p in module.named_parameters()}


def test_each_network_runs_as_often_as_it_must(make: Make) -> None:
    step, calls = make(adversary()), []
    step.tokenizer.quantizer.register_forward_hook(lambda *_: calls.append("quantizer"))
    step.tokenizer.decoder.register_forward_hook(lambda *_: calls.append("decoder"))
    step.adversary.discriminator.register_forward_hook(lambda *_: calls.append("discriminator"))
    step.losses["l1"].register_forward_hook(lambda *_: calls.append("l1"))
    step([next(batches())], 0)
    assert sorted(calls) == ["decoder", "discriminator", "discriminator", "l1", "quantizer"]


@pytest.mark.parametrize("is_adaptive", [True, False])
def test_gradients_are_those_of_the_sums_written_out(make: Make, is_adaptive: bool) -> None:
    """The step's own way (gradients at the reconstruction, then one backward) against plain autograd, in float64."""
    plainly = {"is_adaptive": is_adaptive, "max_gradient_norm": None, "weight_ema": None}
    step, again = (make(adversary(optimizer=SGD), plainly) for _ in range(2))
    for one in (step, again):
        one.tokenizer.double()
        one.adversary.discriminator.double()
    batch = next(batches())
    torch.manual_seed(0)
    step([batch], 0)
    torch.manual_seed(0)
    image = to_signed_unit(batch["image"]).double()
    output = again.tokenizer(image)
    fake = again.adversary.discriminator(output.reconstruction)
    l1, g = (output.reconstruction - image).abs().mean(), -fake.mean()
    weight = torch.tensor(0.8, dtype=torch.float64)
    if is_adaptive:
        last = again.tokenizer.decoder.last_layer
        (a,), (b,) = (torch.autograd.grad(x, last, retain_graph=True) for x in (l1, g))
        weight = 0.8 * a.norm() / (b.norm() + 1e-4)
    parameters = list(again.tokenizer.parameters())
    wanted = torch.autograd.grad(l1 + output.quantize.loss + weight * g, parameters, allow_unused=True)
    for (name, p), gradient in zip(step.tokenizer.named_parameters(), wanted, strict=True):
        torch.testing.assert_close(p.grad, gradient, atol=1e-10, rtol=1e-9, msg=lambda m, n=name: f"{n}: {m}")

    real, fake = (again.adversary.discriminator(x) for x in (image, output.reconstruction.detach()))
    hinge = 0.5 * ((1 - real).relu().mean() + (1 + fake).relu().mean())
    hinge.backward(inputs=list(again.adversary.discriminator.parameters()))
    pairs = zip(
        step.adversary.discriminator.parameters(), again.adversary.discriminator.parameters(), strict=True
    )
    for p, q in pairs:
        torch.testing.assert_close(p.grad, q.grad, atol=1e-10, rtol=1e-9)


def test_nothing_happens_before_the_discriminator_starts(make: Make) -> None:
    step, plain = make(adversary(start_step=2)), make(adversary(start_step=9))
    before = weights_of(step.adversary.discriminator)
    stream = batches()
    for i in range(2):
        batch = next(stream)
        for one in (step, plain):
            torch.manual_seed(i)
            scalars = one([batch], i)
        assert scalars["adversarial_weight"] == scalars["loss/adversarial"] == 0
    assert not changed(before, step.adversary.discriminator)
    scalars = step([next(stream)], 2)
    assert changed(before, step.adversary.discriminator)
    assert scalars["adversarial_weight"] > 0
    assert scalars["discriminator/learning_rate"] == pytest.approx(1e-3)
    wanted = {"total", "objective", "accuracy", "logit_real", "logit_fake", "gradient_norm", "learning_rate"}
    assert {f"discriminator/{name}" for name in wanted} <= set(scalars)
    assert not any(value.requires_grad for value in scalars.values())
    total = scalars["loss/l1"] + scalars["loss/quantizer"]
    total = total + scalars["adversarial_weight"] * scalars["loss/adversarial"]
    torch.testing.assert_close(scalars["loss/total"], total)


@pytest.mark.parametrize("is_adaptive", [True, False])
def test_micro_batches_equal_one_large_batch(make: Make, is_adaptive: bool) -> None:
    lecam = {
        "penalties": {"lecam": {"type": "LeCAMPenalty"}, "r1": {"type": "R1Penalty", "every": 2}},
        "weights": {"objective": 1.0, "lecam": 0.01, "r1": 0.1},
    }
    parts = (adversary(optimizer=SGD, **lecam), {"is_adaptive": is_adaptive, "optimizer": SGD})
    large, small = make(*parts, **NORMAL), make(*parts, **NORMAL)
    for step in (large, small):  # sums in another order then differ by 1e-16 of their terms
        step.optimization.weight_ema = None
        for module in (step.model, step.adversary.discriminator, *step.adversary.penalties.values()):
            module.double()
    whole, pieces = batches(), batches(4)
    for i in range(5):
        one, many = large([next(whole)], i), small(list(islice(pieces, 4)), i)
        assert one.keys() == many.keys()
        for name in ("loss/total", "adversarial_weight", "discriminator/total"):
            torch.testing.assert_close(one[name], many[name], atol=1e-10, rtol=1e-10)
    for module in (lambda s: s.tokenizer, lambda s: s.adversary.discriminator):
        a, b = (module(s).state_dict() for s in (large, small))
        for name, tensor in a.items():
            torch.testing.assert_close(
                tensor, b[name], atol=1e-10, rtol=1e-10, msg=lambda m, n=name: f"{n}: {m}"
            )


def test_resuming_continues_bit_for_bit(make: Make) -> None:
    lecam = {"penalties": {"lecam": {"type": "LeCAMPenalty"}}, "weights": {"objective": 1.0, "lecam": 0.01}}
    one, other = make(adversary(**lecam)), make(adversary(**lecam))
    stream = batches()
    for i in range(2):
        one([next(stream)], i)
    other.tokenizer.load_state_dict(one.tokenizer.state_dict())
    other.load_state_dict(copy.deepcopy(one.state_dict()))
    batch = next(stream)
    for step in (one, other):
        torch.manual_seed(3)
        step([batch], 2)
    for a, b in (
        (one.tokenizer, other.tokenizer),
        (one.adversary.discriminator, other.adversary.discriminator),
    ):
        for name, tensor in a.state_dict().items():
            assert torch.equal(tensor, b.state_dict()[name]), name


def test_a_state_of_another_discriminator_is_refused(make: Make) -> None:
    wide = {"type": "PatchDiscriminator", "base_width": 16, "depth": 1}
    with pytest.raises(ValueError, match="the discriminator differs from the config's"):
        make(adversary(discriminator=wide)).load_state_dict(make(adversary()).state_dict())


def test_autocast_keeps_the_quantizer_and_the_losses_in_float32(make: Make) -> None:
    penalty = {"penalties": {"r1": {"type": "R1Penalty"}}, "weights": {"objective": 1.0, "r1": 1.0}}
    step = make(adversary(**penalty))
    step.optimization.autocast = True
    seen: dict[str, set[torch.dtype]] = {}
    note = lambda name, x: seen.setdefault(name, set()).add(x.dtype)  # noqa: E731
    step.tokenizer.encoder.register_forward_hook(lambda m, i, o: note("encoder", o))
    step.losses["l1"].register_forward_hook(lambda m, i, o: note("l1", i[0]))
    step.adversary.discriminator.register_forward_hook(lambda m, i, o: note("discriminator", o))
    scalars = step([next(batches())], 0)
    assert seen["encoder"] == {torch.bfloat16}
    assert seen["l1"] == {torch.float32}
    assert seen["discriminator"] == {torch.bfloat16, torch.float32}  # the penalty needs the precision
    assert scalars["discriminator/total"].dtype == torch.float32


def test_the_discriminator_learns_to_tell(make: Make) -> None:
    step = make(adversary(), {"optimizer": {"type": "torch.optim.SGD", "lr": 0.0}, "weight_ema": None})
    stream = batches()
    accuracy = [step([next(stream)], i)["discriminator/accuracy"] for i in range(40)]
    assert accuracy[-1] > 0.9


def test_first_weights_of_the_discriminator_depend_on_the_seed_alone(make: Make) -> None:
    a, b = make(adversary()), make(adversary())
    assert not changed(weights_of(a.adversary.discriminator), b.adversary.discriminator)


def test_a_start_beyond_the_end_warns(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        make(adversary(start_step=8))
    assert "start_step: the run ends at step 8, before step 8" in caplog.text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"start_step": -1}, "start_step: expected at least 0, got -1"),
        ({"weights": {"objective": 1.0, "r1": 1.0}}, r"weights: expected one for each of \['objective'\]"),
        ({"discriminator": {"type": "PatchDiscriminator", "depth": 0}}, "expected depth to be an integer"),
        ({"discriminator": {"type": "vq.networks.CNNDecoder"}}, "expected a discriminator, got CNNDecoder"),
        ({"objective": {"type": "HingeObjectiv"}}, "did you mean 'HingeObjective'"),
    ],
)
def test_a_wrong_adversary_is_refused(make: Make, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make(adversary(**changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"weights": {"l1": 1.0, "quantizer": 1.0}},
            r"weights: expected one for each of \['l1', 'quantizer', 'adv",
        ),
        ({"losses": {}, "weights": {"quantizer": 1.0, "adversarial": 1.0}}, "losses: expected at least one"),
    ],
)
def test_a_wrong_step_is_refused(make: Make, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make(adversary(), changes)


def test_a_node_without_discriminator_is_refused(make: Make) -> None:
    with pytest.raises(ConfigError, match=r"(?s)train_step\.adversary: .*missing argument 'discriminator'"):
        make({"type": "Adversary", "objective": {"type": "HingeObjective"}})
