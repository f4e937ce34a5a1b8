"""Training on tars that is killed and resumed ends with the very bytes of a run that was not."""

import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from commands import TINY, run, run_and_kill
from safetensors.torch import load_file
from tar_shards import UNEVEN, served, write_shards
from test_resume import flat, timeless

STEPS = 44  # of 8 images: two epochs and a part of the third
SHARDS = 20  # more than are shuffled together


@pytest.fixture(scope="module")
def tars(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tars")
    write_shards(folder, UNEVEN * (SHARDS // len(UNEVEN)))
    return folder


@pytest.fixture
def place(request: pytest.FixtureRequest, tars: Path) -> Iterator[str]:
    """The folder of the shards on disk or on a web server."""
    if request.param == "disk":
        yield str(tars)
        return
    with served(tars) as (address, _):
        yield address


def options(place: str, workers: int) -> list[str]:
    dataset = f"type='vq.data.WebDataset', shards='{place}/{{000..{SHARDS - 1:03d}}}.tar', val_fraction=0.15"
    return [
        "--config-options",
        f"num_workers:{workers}",
        f"max_steps:{STEPS}",
        "--override",
        ".evaluator.every:22",
        ".checkpointer.every:4",
        f".train_data.dataset:dict({dataset}, split='train')",
        f".val_data.dataset:dict({dataset}, split='val')",
    ]


@pytest.fixture(scope="module")
def unbroken(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tars: Path
) -> tuple[int, Path]:
    folder = tmp_path_factory.mktemp("unbroken")
    run("train", "run", TINY, *options(str(tars), 0), cwd=folder, ranks=request.param)
    return request.param, folder / "work_dirs" / "run"


@pytest.mark.parametrize(
    ("unbroken", "workers", "place"),
    [
        (1, 2, "disk"),
        pytest.param(1, 0, "disk", marks=pytest.mark.slow),
        pytest.param(1, 2, "web server", marks=pytest.mark.slow),
        pytest.param(2, 0, "disk", marks=pytest.mark.slow),
        pytest.param(2, 2, "disk", marks=pytest.mark.slow),
    ],
    indirect=["unbroken", "place"],
)
def test_killed_and_resumed_equals_unbroken_bit_for_bit(
    unbroken: tuple[int, Path], workers: int, place: str, tmp_path: Path
) -> None:
    ranks, reference = unbroken
    seed = random.SystemRandom().randrange(2**32)
    print(f"random moment of the kill: seed {seed}")  # noqa: T201 - shown by pytest when the test fails
    moment = random.Random(seed)
    run_folder = tmp_path / "work_dirs" / "run"
    after = 4 * moment.randrange(1, 7)

    def reached() -> bool:
        return (run_folder / "checkpoints" / f"iter_{after}").exists()

    arguments = ["run", TINY, *options(place, workers)]
    run_and_kill("train", arguments, cwd=tmp_path, ranks=ranks, when=reached, delay=moment.random() * 0.1)
    assert not (run_folder / "checkpoints" / f"iter_{STEPS}").exists(), "killed too late to show anything"
    run("train", *arguments, "--auto-resume", cwd=tmp_path, ranks=ranks)

    mine, theirs = (folder / "checkpoints" / f"iter_{STEPS}" for folder in (run_folder, reference))
    for name in ("model.safetensors", "model_ema.safetensors"):
        ours, expected = load_file(mine / name), load_file(theirs / name)
        assert ours.keys() == expected.keys()
        assert not [key for key in ours if not torch.equal(ours[key], expected[key])], name
    states = [torch.load(folder / "train_state.pt", weights_only=True) for folder in (mine, theirs)]
    assert flat(states[0]) == flat(states[1])
    rows = [
        [timeless(json.loads(line)) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        for folder in (run_folder, reference)
    ]
    assert rows[0] == rows[1]
