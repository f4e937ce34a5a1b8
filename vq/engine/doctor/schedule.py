"""Checks of what happens at which step."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from vq.engine.doctor.case import Case
from vq.engine.doctor.findings import NEVER, Finding, ok, trouble, warning

FEW_EPOCHS, MANY_EPOCHS = 1, 1000
HIGHEST_RATE = 1.0
"""Of an adaptive optimizer (Adam and its relatives), whose steps are as long as the rate."""


def check_epochs(case: Case) -> Iterator[Finding]:
    """The steps in passes over the training set."""
    if (loader := case.train_data.value) is None:
        return
    epochs = case.max_steps * loader.batch_size / loader.num_samples
    text = f"{case.max_steps:,} steps are {epochs:,.1f} epochs of {loader.num_samples:,} samples"
    if epochs < FEW_EPOCHS:
        share = f"only {epochs:.0%} of the samples are seen"
        yield warning(
            "trainer.max_steps", f"{text}: {share}", "raise max_steps or the batch size", step=NEVER
        )
    elif epochs > MANY_EPOCHS:
        yield warning("trainer.max_steps", f"{text}, likely to overfit", "lower max_steps", step=NEVER)
    else:
        yield ok("trainer.max_steps", text)


def check_events(case: Case) -> Iterator[Finding]:
    """Validations and checkpoints against the length of the run, and against each other."""
    last, save, validate = case.max_steps, case.saves_every, case.validates_every
    if validate > last:
        yield warning(
            "evaluator.every", f"{validate:,}, but the run ends at step {last:,}: it is validated at its end only",
            "lower it", step=last,
        )  # fmt: skip
    if save > last:
        yield warning(
            "checkpointer.every", f"{save:,}, but the run ends at step {last:,}: if it is interrupted, all is lost",
            "lower it", step=last,
        )  # fmt: skip
    elif validate <= last and validate % save and validate != last:
        yield warning(
            "evaluator.every",
            f"validates every {validate:,} steps, saves every {save:,}: most scores are of weights that are not saved",
            f"use a multiple of {save:,}", step=validate,
        )  # fmt: skip
    keep, keep_best = case.tree["checkpointer"].get("keep"), case.tree["checkpointer"].get("keep_best")
    if keep is not None and keep_best is None and save <= last and validate > keep * save:
        yield warning(
            "checkpointer.keep",
            f"keeps the last {keep} checkpoints, so one that was validated is removed before the next validation",
            f"keep {math.ceil(validate / save) + 1}", step=validate + keep * save,
        )  # fmt: skip


def check_warmup(case: Case) -> Iterator[Finding]:
    """Warm-ups, discriminators, annealing and weights that begin or end after the run."""
    step, last = case.tree["train_step"], case.max_steps
    for place, node, begins in _schedules(step):
        warmup = (node or {}).get("warmup_steps") or 0
        if warmup >= last - begins > 0:
            yield warning(
                f"{place}.warmup_steps",
                f"{warmup:,}, but {last - begins:,} steps are taken: the full rate is never reached",
                "lower it, or raise max_steps", step=NEVER,
            )  # fmt: skip
    start = (_inner(step).get("adversary") or {}).get("start_step") or 0
    if start >= last:
        yield warning(
            "train_step.adversary.start_step",
            f"{start:,}, but the run ends at step {last:,}: the discriminator is never used",
            "lower it, or raise max_steps", step=NEVER,
        )  # fmt: skip
    for place, node in _functions_of_the_step(step):
        begin, steps = node.get("start") or 0, node.get("steps") or 0
        if begin + steps > last:
            yield warning(
                place, f"ends at step {begin + steps:,}, after the run ({last:,} steps)",
                f"set its {'start and ' if begin else ''}steps to at most {last:,}{' together' if begin else ''}",
                step=NEVER,
            )  # fmt: skip
        if place.endswith("weights.adversarial") and begin < start and not node.get("first"):
            yield warning(
                place, f"rises from step {begin:,} on, but the discriminator starts at step {start:,}: a part of the "
                f"rise is lost, and the weight jumps",
                f"set its start to at least {start:,}", step=start,
            )  # fmt: skip


def check_rates(case: Case) -> Iterator[Finding]:
    """Learning rates that cannot be meant."""
    step = case.tree["train_step"]
    optimizers = {
        "train_step.optimizer": _inner(step).get("optimizer"),
        "train_step.adversary.optimizer": (_inner(step).get("adversary") or {}).get("optimizer"),
    }
    for place, node in optimizers.items():
        rate = (node or {}).get("lr")
        if not isinstance(node, Mapping) or not isinstance(rate, int | float):
            continue
        is_adaptive = "Adam" in str(node["type"]).rpartition(".")[2]
        if rate == 0:
            yield trouble(f"{place}.lr", "0: nothing is learned", "raise it", step=NEVER)
        elif is_adaptive and rate > HIGHEST_RATE:
            yield trouble(
                f"{place}.lr",
                f"{rate:g}: each step of Adam changes every weight by so much",
                "lower it",
                step=1,
            )


def _functions_of_the_step(step: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Place and node of each annealed attribute, and of each weight that changes."""
    inner = _inner(step)
    named = {
        "train_step.annealing": inner.get("annealing"),
        "train_step.weights": inner.get("weights"),
        "train_step.adversary.weights": (inner.get("adversary") or {}).get("weights"),
    }
    for place, collection in named.items():
        for name, node in (collection or {}).items():
            if isinstance(node, Mapping):
                yield f"{place}.{name}", node


def _inner(step: Mapping[str, Any]) -> Mapping[str, Any]:
    """The step that a step wraps, or the step itself."""
    inner: Mapping[str, Any] = step.get("step") or step
    return inner


def _schedules(step: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any] | None, int]]:
    """Place, node and first step of each learning-rate schedule."""
    inner = _inner(step)
    yield "train_step.schedule", inner.get("schedule"), 0
    adversary = inner.get("adversary") or {}
    yield "train_step.adversary.schedule", adversary.get("schedule"), adversary.get("start_step") or 0
