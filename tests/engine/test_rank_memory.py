"""The memory of one rank with DDP and with FSDP2, as vq doctor says it."""

import json
import subprocess
import sys

import pytest
from commands import ROOT, TINY

from vq import config
from vq.engine.doctor.case import Case, Options, World
from vq.engine.doctor.rank_memory import RankMemory, check_ranks, rank_memory
from vq.engine.strategies import DDP, FSDP2

PLAIN = {"type": "FiniteScalarQuantizer", "levels": [3, 3, 3, 3]}  # nothing of it is kept whole


def case(ranks: int, **changes: object) -> Case:
    overrides = {"." + key.replace("__", "."): value for key, value in changes.items()}
    tree = config.load(TINY, overrides={".tokenizer.quantizer": PLAIN, **overrides}).to_dict()
    return Case(tree=tree, options=Options(device="cpu"), world=World(ranks=ranks))


def of_rank(one: Case, strategy: DDP | FSDP2, ranks: int) -> RankMemory:
    return rank_memory(one.step.value.step, one.trace.value, strategy, ranks)


def test_parts_of_a_copy_are_those_of_the_model() -> None:
    one = case(2)
    size = sum(p.nbytes for p in one.step.value.step.model.parameters())
    copied = of_rank(one, DDP(), 2)
    assert copied.gradients == size
    assert copied.parameters == pytest.approx(size, rel=0.02)  # and a few buffers
    assert copied.others == pytest.approx(size, rel=0.05)  # the average is one more copy
    assert 2 * size <= copied.optimizer < 2.01 * size  # AdamW: two moments, and a counter for each parameter
    assert copied.gathered == 0
    assert copied.activations > 0
    assert copied.total == one.trace.value.peak
    assert 0 < one.trace.value.activations < one.trace.value.peak - 3 * size


def test_shards_divide_parameters_moments_averages_and_gradients() -> None:
    one = case(2)
    model = one.step.value.step.model
    divided = sum(p.nbytes for p in FSDP2().divided(model))
    whole = sum(p.nbytes for p in model.parameters()) - divided
    copied, in_two, in_eight = (of_rank(one, s, n) for s, n in ((DDP(), 2), (FSDP2(), 2), (FSDP2(), 8)))
    for found, part in ((in_two, 2), (in_eight, 8)):
        assert found.gradients == pytest.approx(whole + divided / part, abs=1)
        assert (
            found.parameters - found.gradients == copied.parameters - copied.gradients
        )  # buffers are not divided
    assert in_eight.optimizer < in_two.optimizer < copied.optimizer
    assert in_eight.activations == copied.activations
    assert of_rank(one, FSDP2(shards=2), 8).parameters == in_two.parameters
    assert 0 < in_two.gathered <= 3 * divided


def test_gradients_stay_whole_until_the_last_micro_batch() -> None:
    one = case(2, train_step__accumulate=2)
    assert of_rank(one, FSDP2(), 2).gradients == of_rank(one, DDP(), 2).gradients


def test_both_strategies_are_compared_if_there_are_several_ranks() -> None:
    assert list(check_ranks(case(1))) == []
    ddp, fsdp = check_ranks(case(4))
    assert (ddp.place, fsdp.place) == ("memory with DDP", "memory with FSDP2")
    assert fsdp.what.startswith("4 shards, ")
    assert "activations, estimated" in ddp.what
    _, refused = check_ranks(
        case(4, train_step__strategy={"type": "FSDP2", "shards": 3})
    )  # 3 does not divide 4
    assert "3" in refused.what


@pytest.mark.slow
def test_three_billion_parameters_are_planned_without_their_memory() -> None:
    program = """
import json, resource, sys
from vq import config
from vq.engine.doctor.case import Case, Options, World
from vq.engine.doctor.rank_memory import rank_memory
from vq.engine.strategies import DDP, FSDP2
tree = config.load("llamagen/c2i_3B_imagenet_ddp").to_dict()
one = Case(tree=tree, options=Options(device="cpu"), world=World(ranks=8))
step = one.step.value.step
found = [rank_memory(step, one.trace.value, strategy, 8) for strategy in (DDP(), FSDP2())]
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps({
    "number": sum(p.numel() for p in step.model.parameters()),
    "is_meta": all(p.is_meta for p in step.model.parameters()),
    "peak": peak,
    "parameters": [f.parameters for f in found],
    "optimizer": [f.optimizer for f in found],
    "gradients": [f.gradients for f in found],
    "total": [f.total for f in found],
}))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True, timeout=600
    )
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["is_meta"]
    assert 3.0e9 < found["number"] < 3.2e9
    assert (
        found["peak"] < 4 * found["number"] / 4
    )  # a quarter of the weights alone; torch itself takes 0.6 GB
    for name, each in (("parameters", 1), ("optimizer", 2), ("gradients", 1)):
        copied, divided = found[name]
        assert copied == pytest.approx(each * 4 * found["number"], rel=0.01)
        assert divided == pytest.approx(copied / 8, rel=0.05)
    # At the peak, where the backward begins, parameters and two averages are divided, and no gradient exists yet.
    assert found["total"][1] < found["total"][0] - 0.8 * 3 * 4 * found["number"] * 7 / 8
