"""The arithmetic of docs/scaling.md, and that the page shows what the tool prints."""

import random
from pathlib import Path

import pytest
import torch
from commands import ROOT

from tools.scaling import Plan, main
from vq.cli import UsageError
from vq.data.stores.token_shards import ShardFiles, write_shard


def test_the_slowest_part_decides() -> None:
    plan = Plan(
        images=3600 * 400,
        gpus=2,
        gpu_rate=300,
        cores_per_gpu=4,
        core_rate=50,
        storage=1e6,
        file_bytes=1e3,
        price=5,
    )
    assert plan.rates() == {"GPUs": 600, "decoding": 400, "storage": 1000}
    assert plan.limit() == "decoding"
    assert plan.hours() == 1.0
    assert plan.cost() == 10.0
    assert Plan(images=1, storage=1e3, file_bytes=1e3).limit() == "storage"
    assert Plan(images=1).limit() == "GPUs"


def test_own_rates(capsys: pytest.CaptureFixture[str]) -> None:
    words = "--images 3.6e6 --gpus 4 --gpu-rate 250 --core-rate 100 --cores-per-gpu 10 --token-bytes 1000 --price 3"
    main(words.split())
    row = capsys.readouterr().out.splitlines()[-1]
    assert row == "| 3,600,000 | - | 4 | 1,000 | 1.0 | 12 | 0.4 TB | 3.6 GB | GPUs |"


@pytest.mark.parametrize("words", ["--price 0", "--storage nan", "--images inf", "--gpus 0"])
def test_numbers_that_mean_nothing_are_refused(words: str) -> None:
    option, value = words.split()
    with pytest.raises(UsageError, match=f"argument {option}: expected .*, got {value}"):
        main([option, value])


def test_a_rate_for_both_jobs_is_refused() -> None:
    with pytest.raises(UsageError, match="--gpu-rate: expected --images beside it"):
        main(["--gpu-rate", "900"])


def test_the_bytes_of_an_image_are_those_of_a_shard_on_disk(tmp_path: Path) -> None:
    """8,192 images of 16 x 16 indices below 65,536, with names and labels as in ImageNet-21k."""
    draw, count = random.Random(0), 8192
    labels = sorted(draw.randrange(21_841) for _ in range(count))
    keys = [f"n{label:08d}/n{label:08d}_{draw.randrange(30_000)}.JPEG" for label in labels]
    files = ShardFiles(directory=tmp_path, number=0)
    indices = torch.randint(0, 16_384, (count, 1, 16, 16))
    write_shard(files, indices, labels=labels, keys=keys, undecodable=[], width=2)
    measured = (files.tokens.stat().st_size + files.notes.stat().st_size) / count
    assert Plan(images=1).token_bytes == pytest.approx(measured, rel=0.01)


def test_the_page_shows_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    main([])
    assert capsys.readouterr().out in (ROOT / "docs/scaling.md").read_text()
