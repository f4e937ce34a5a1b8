"""Training on shards that is killed and resumed ends with the very bytes of a run that was not."""

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from commands import TINY, run, run_and_kill
from hub_server import NAME, hub
from parquet_files import write_numbered
from safetensors.torch import load_file
from tar_shards import UNEVEN, served, write_shards
from test_resume import flat, timeless

STEPS = 44  # of 8 images: two epochs and a part of the third
FILES = 5
SHARDS = FILES * len(UNEVEN)  # more than are shuffled together


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the same images in tars and in row groups of Parquet files."""
    folder = tmp_path_factory.mktemp("shards")
    write_shards(folder, UNEVEN * FILES)
    write_numbered(folder / "data", [UNEVEN] * FILES)
    return folder


def tars(place: str, split: str) -> str:
    names = f"shards='{place}/{{000..{SHARDS - 1:03d}}}.tar'"
    return f"dict(type='vq.data.WebDataset', {names}, split='{split}', val_fraction=0.15)"


def row_groups(place: str, split: str) -> str:
    names = [f"{place}/data/train-{file:05d}-of-{FILES:05d}.parquet" for file in range(FILES)]
    return divided(f"dict(type='vq.data.ParquetImages', files={names})", split)


def streamed(place: str, split: str) -> str:
    return divided(f"dict(type='vq.data.HuggingFaceDataset', name='{place}', streaming=True)", split)


def divided(dataset: str, split: str) -> str:
    return f"dict(type='vq.data.HashSplit', dataset={dataset}, split='{split}', val_fraction=0.15)"


Layout = Callable[[str, str], str]


@pytest.fixture
def place(
    request: pytest.FixtureRequest, shards: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[str]:
    """The shards on disk, on a web server, or on a server that answers as the Hugging Face hub does."""
    if request.param == "disk":
        yield str(shards)
    elif request.param == "web server":
        with served(shards) as (address, _):
            yield address
    else:
        with hub(shards) as (address, _):
            monkeypatch.setenv("HF_ENDPOINT", address)
            monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
            yield NAME


def options(layout: Layout, place: str, workers: int) -> list[str]:
    return [
        "--config-options",
        f"num_workers:{workers}",
        f"max_steps:{STEPS}",
        "--override",
        ".evaluator.every:22",
        ".checkpointer.every:4",
        f".train_data.dataset:{layout(place, 'train')}",
        f".val_data.dataset:{layout(place, 'val')}",
    ]


@pytest.fixture(scope="module")
def unbroken(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, shards: Path
) -> tuple[Layout, int, Path]:
    layout, ranks = request.param
    folder = tmp_path_factory.mktemp("unbroken")
    run("train", "run", TINY, *options(layout, str(shards), 0), cwd=folder, ranks=ranks)
    return layout, ranks, folder / "work_dirs" / "run"


@pytest.mark.parametrize(
    ("unbroken", "workers", "place"),
    [
        pytest.param((tars, 1), 2, "disk", marks=pytest.mark.slow),
        pytest.param((row_groups, 1), 2, "disk", marks=pytest.mark.slow),
        pytest.param((tars, 1), 0, "disk", marks=pytest.mark.slow),
        pytest.param((tars, 1), 2, "web server", marks=pytest.mark.slow),
        pytest.param((row_groups, 1), 0, "disk", marks=pytest.mark.slow),
        pytest.param((row_groups, 1), 2, "web server", marks=pytest.mark.slow),
        pytest.param((streamed, 1), 2, "hub", marks=pytest.mark.slow),
        pytest.param((tars, 2), 0, "disk", marks=pytest.mark.slow),
        pytest.param((tars, 2), 2, "disk", marks=pytest.mark.slow),
        pytest.param((row_groups, 2), 0, "disk", marks=pytest.mark.slow),
        pytest.param((row_groups, 2), 2, "disk", marks=pytest.mark.slow),
    ],
    indirect=["unbroken", "place"],
)
def test_killed_and_resumed_equals_unbroken_bit_for_bit(
    unbroken: tuple[Layout, int, Path], workers: int, place: str, tmp_path: Path
) -> None:
    layout, ranks, reference = unbroken
    seed = random.SystemRandom().randrange(2**32)
    print(f"random moment of the kill: seed {seed}")  # noqa: T201 - shown by pytest when the test fails
    moment = random.Random(seed)
    run_folder = tmp_path / "work_dirs" / "run"
    after = 4 * moment.randrange(1, 7)

    def reached() -> bool:
        return (run_folder / "checkpoints" / f"iter_{after}").exists()

    arguments = ["run", TINY, *options(layout, place, workers)]
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
