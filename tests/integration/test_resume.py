"""A run that is killed and resumed ends with the very bytes of a run that was not."""

import json
import random
from pathlib import Path

import pytest
import torch
from commands import TINY, run, run_and_kill
from safetensors.torch import load_file

STEPS = 40


def options(workers: int) -> list[str]:
    return [
        "--config-options",
        f"num_workers:{workers}",
        f"max_steps:{STEPS}",
        "--override",
        ".evaluator.every:20",
        ".checkpointer.every:4",
    ]


@pytest.fixture(scope="module")
def unbroken(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[int, Path]:
    folder = tmp_path_factory.mktemp("unbroken")
    run("train", "run", TINY, *options(0), cwd=folder, ranks=request.param)
    return request.param, folder / "work_dirs" / "run"


@pytest.mark.parametrize(
    ("unbroken", "workers"),
    [
        (1, 0),
        pytest.param(1, 2, marks=pytest.mark.slow),
        pytest.param(2, 0, marks=pytest.mark.slow),
        pytest.param(2, 2, marks=pytest.mark.slow),
    ],
    indirect=["unbroken"],
)
def test_killed_and_resumed_equals_unbroken_bit_for_bit(
    unbroken: tuple[int, Path], workers: int, tmp_path: Path
) -> None:
    ranks, reference = unbroken
    seed = random.SystemRandom().randrange(2**32)
    print(f"random moment of the kill: seed {seed}")  # noqa: T201 - shown by pytest when the test fails
    moment = random.Random(seed)
    run_folder = tmp_path / "work_dirs" / "run"
    after = 4 * moment.randrange(1, 6)

    def reached() -> bool:
        return (run_folder / "checkpoints" / f"iter_{after}").exists()

    arguments = ["run", TINY, *options(workers)]
    run_and_kill("train", arguments, cwd=tmp_path, ranks=ranks, when=reached, delay=moment.random() * 0.1)
    assert not (run_folder / "checkpoints" / f"iter_{STEPS}").exists(), "killed too late to show anything"
    run("train", *arguments, "--auto-resume", cwd=tmp_path, ranks=ranks)

    mine, theirs = (folder / "checkpoints" / f"iter_{STEPS}" for folder in (run_folder, reference))
    for name in ("model.safetensors", "model_ema.safetensors"):
        ours, expected = load_file(mine / name), load_file(theirs / name)
        assert ours.keys() == expected.keys()
        different = [k for k in ours if not torch.equal(ours[k], expected[k])]
        assert not different, f"{name}: {different}"
    states = [torch.load(folder / "train_state.pt", weights_only=True) for folder in (mine, theirs)]
    assert flat(states[0]) == flat(states[1])
    rows = [json.loads(line) for line in (run_folder / "metrics.jsonl").read_text().splitlines()]
    expected_rows = [json.loads(line) for line in (reference / "metrics.jsonl").read_text().splitlines()]
    assert [timeless(row) for row in rows] == [timeless(row) for row in expected_rows]
    assert not list((run_folder / "checkpoints").glob("*.partial"))


def flat(value: object) -> object:
    if isinstance(value, dict):
        return {k: flat(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [flat(v) for v in value]
    return value.tolist() if isinstance(value, torch.Tensor) else value


def timeless(row: dict[str, object]) -> dict[str, object]:
    return {k: v for k, v in row.items() if not k.startswith("time/")}
