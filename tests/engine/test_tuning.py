"""Layout, compilation, fused optimizers: other speeds, the same losses, checkpoints that know nothing of it."""

import copy
import json
import subprocess
import sys
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import TINY, accepted, environment
from compiled_steps import batches, compare, make, train, tree_of

from vq.engine import assembly
from vq.engine.steps import tuning
from vq.engine.steps.tuning import Tuning, networks_of
from vq.errors import ConfigError

LAST = Tuning(is_channels_last=True)
HERE = Path(__file__).parent
on_cpu = pytest.mark.skipif(
    torch.__version__ < "2.12",
    reason="torch 2.11's group norm crashes (SIGSEGV) in a channels_last backward on CPU",
)


@on_cpu
@pytest.mark.parametrize("case", ["plain", "adversarial"])
def test_channels_last_has_the_same_losses(case: str) -> None:
    tree = tree_of(case)
    plain, last = make(tree, Tuning()), make(tree, LAST)
    seen: list[bool] = []
    networks = [last.model.encoder, last.model.decoder]
    if case == "adversarial":
        networks.append(last.adversary.discriminator)
    for network in networks:
        convolution = next(m for m in network.modules() if isinstance(m, torch.nn.Conv2d))
        convolution.register_forward_hook(
            lambda m, i, o: seen.append(o.is_contiguous(memory_format=torch.channels_last))
        )
    compare(case, train(last, batches(tree)), train(plain, batches(tree)))
    assert seen
    assert all(seen)
    assert list(last.model.state_dict()) == list(plain.model.state_dict())


@pytest.mark.parametrize("case", ["plain", "adversarial"])
def test_fused_optimizers_have_the_same_losses(case: str) -> None:
    tree = tree_of(case)
    adam = {"type": "torch.optim.AdamW", "lr": 1e-3}
    rows = []
    for fused in (False, True):
        tree["train_step"]["optimizer"] = adam | {"fused": fused}
        rows.append(train(make(tree, Tuning()), batches(tree)))
    compare(case, rows[1], rows[0])


@on_cpu
def test_a_contiguous_state_continues_in_channels_last_with_a_fused_optimizer() -> None:
    """They pair weights with moments by their place in memory, and load_state_dict keeps the layout it finds."""
    tree = tree_of("adversarial")
    fused = {"type": "torch.optim.AdamW", "lr": 1e-3, "fused": True}
    tree["train_step"] |= {"optimizer": fused, "weight_ema": None}
    tree["train_step"]["adversary"] = tree["train_step"]["adversary"] | {"optimizer": fused}
    plain, last = make(tree, Tuning()), make(tree, LAST)
    stream = batches(tree)
    train(plain, stream)
    last.model.load_state_dict(plain.model.state_dict())
    last.load_state_dict(copy.deepcopy(plain.state_dict()))
    group = list(islice(stream, 2))
    for step in (plain, last):
        step(group, 3)
    for a, b in (
        (plain.model, last.model),
        (plain.adversary.discriminator, last.adversary.discriminator),
    ):
        for (name, tensor), other in zip(a.state_dict().items(), b.state_dict().values(), strict=True):
            torch.testing.assert_close(other, tensor, atol=1e-9, rtol=1e-9, msg=lambda m, n=name: f"{n}: {m}")


def test_networks_are_compiled_and_names_stay(tree: Callable[..., dict[str, Any]]) -> None:
    tokenizer = assembly.make_tokenizer(tree())
    names = list(tokenizer.state_dict())
    parts = networks_of(tokenizer)
    assert parts == [tokenizer.encoder, tokenizer.decoder]
    Tuning(is_compiled=True).apply(tokenizer, parts)
    assert list(tokenizer.state_dict()) == names
    assert tokenizer.encoder._compiled_call_impl is not None
    assert tokenizer.quantizer._compiled_call_impl is None
    assert tokenizer.decoder.head.forward._torchdynamo_disable  # the adaptive weight's gradient ends there
    assert str(Tuning(is_channels_last=True, is_compiled=True)) == "channels_last, compiled networks"
    assert not str(Tuning())


def test_what_would_crash_is_refused(
    tree: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuning, "SAFE_ON_CPU", (999, 0))
    tokenizer = assembly.make_tokenizer(tree())
    with pytest.raises(ConfigError, match=r"--channels-last: torch .* crashes with it on a CPU"):
        LAST.apply(tokenizer, [])


def run_script(folder: Path, *arguments: str, ranks: int = 1) -> None:
    start = [sys.executable]
    if ranks > 1:
        start += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    done = subprocess.run(
        [*start, HERE / "compiled_steps.py", folder, *arguments],
        env=environment(PYTHONPATH=f"{HERE.parents[1]}:{HERE.parent}"),
        capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr[-6000:]


@pytest.mark.slow
def test_compiled_steps_have_the_same_losses_and_checkpoints(tmp_path: Path) -> None:
    run_script(tmp_path, "aot_eager", "adversarial")  # all of torch.compile but the generated code


@pytest.mark.slow
def test_every_kind_of_step_compiles(tmp_path: Path) -> None:
    run_script(tmp_path, "inductor", "plain", "adversarial", "proposal")


@pytest.mark.slow
def test_two_ranks_compile(tmp_path: Path) -> None:
    run_script(tmp_path, "aot_eager", "plain", "adversarial", "proposal", ranks=2)


@on_cpu
def test_the_command_takes_the_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    said = accepted(
        "train",
        "last",
        TINY,
        "--config-options",
        "max_steps:4",
        "--channels-last",
        "--deterministic",
        "--override",
        ".train_step.optimizer.fused:True",
    )
    assert " channels_last" in said
    assert "deterministic: every sum is computed in a fixed order" in said
    assert json.loads(Path("work_dirs/last/checkpoints/iter_4/arguments.json").read_text())["deterministic"]
    assert Path("work_dirs/last/checkpoints/iter_4/model_ema.safetensors").exists()
