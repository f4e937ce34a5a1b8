"""The league's command: one table over contestants and seeds, and nothing is computed twice."""

import csv
import math
import signal
import subprocess
import time
import uuid
from pathlib import Path

import pytest
from commands import MARK, ROOT, accepted, command, environment, processes, refused

PAGE = ROOT / "configs" / "compare" / "league.py"
PICTURES = "dict(type='vq.data.ProceduralDataset', num_images=64, image_size=32)"
SMALL = [
    *("--override", ".train_data.batch_size:8"),
    *(f".val_data.dataset:{PICTURES}", f".train_data.dataset:{PICTURES}"),
]
SHORT = ["--steps", 25, "--only", "fsq", "lfq", "--config-options", "image_size:32", *SMALL]


def test_a_table_of_two_quantizers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    accepted("compare", PAGE, *SHORT)
    (folder,) = (tmp_path / "work_dirs" / "compare").iterdir()
    with (folder / "table.csv").open() as file:
        rows = {row["name"]: row for row in csv.DictReader(file)}
    assert set(rows) == {"fsq", "lfq"}
    assert float(rows["fsq"]["codebook_size"]) == 240
    assert float(rows["lfq"]["bits_per_token"]) == 8
    assert 0 < float(rows["fsq"]["codebook_usage"]) <= 1
    assert float(rows["fsq"]["psnr"]) > 8
    assert "| fsq |" in (folder / "table.md").read_text()
    assert (folder / "table.png").stat().st_size > 10_000
    results = {path: path.stat().st_mtime_ns for path in folder.glob("*.json")}
    assert len(results) == 2
    accepted("compare", PAGE, *SHORT)  # nothing is trained again: the results are there
    assert {path: path.stat().st_mtime_ns for path in folder.glob("*.json")} == results


def test_what_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "has no contestant 'fsk'; there are: vq_uniform" in refused("compare", PAGE, "--only", "fsk")
    page = ROOT / "configs" / "fsq" / "1000_emoji.py"
    assert "expected a section contestants" in refused("compare", page)
    assert "--seeds 0 0: a value is given twice" in refused("compare", PAGE, "--seeds", 0, 0)
    assert "--steps: expected at least 1, got 0" in refused("compare", PAGE, "--steps", 0)
    (tmp_path / "file").write_text("x")
    assert "file is a file, and a folder is needed" in refused("compare", PAGE, "--out", "file/x")
    wrong = ".train_data.dataset:dict(type='vq.data.ImageFolder', root='nowhere')"
    said = refused("compare", PAGE, "--only", "fsq", "--override", wrong)  # by the process that trains
    assert said.startswith("contestant 'fsq', seed 0: train_data: ImageFolder: expected a folder of images")


@pytest.mark.slow
def test_tokens_and_bits_of_whole_tokenizers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    few = ["--steps", 5, "--only", "f8_638_bits", "latent_159_bits", *SMALL]
    accepted("compare", PAGE.with_name("tradeoff.py"), *few)
    (folder,) = (tmp_path / "work_dirs" / "compare").iterdir()
    with (folder / "table.csv").open() as file:
        rows = {row["name"]: row for row in csv.DictReader(file)}
    found = {
        name: (float(row["tokens_per_image"]), float(row["bits_per_image"])) for name, row in rows.items()
    }
    assert found == {
        "f8_638_bits": (64, pytest.approx(64 * math.log2(1000))),
        "latent_159_bits": (16, pytest.approx(16 * math.log2(1000))),
    }


def test_a_tokenizer_without_images_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "page.py").write_text(
        '_base_ = "compare/tradeoff.py"\n'
        "from vq.networks import StridedCNNEncoder\n"
        "from vq.quantizers import IdentityQuantizer\n"
        "from vq.tokenizers import FeatureTokenizer\n"
        "tokenizers = dict(features=dict(type=FeatureTokenizer, encoder=dict(type=StridedCNNEncoder, widths=(8, 8)), "
        "quantizer=dict(type=IdentityQuantizer, dim=8)))\n"
    )
    said = refused("compare", tmp_path / "page.py", "--only", "features")
    assert said.startswith("features: expected a tokenizer that reconstructs images")


@pytest.mark.parametrize("number", [pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGKILL])
def test_no_training_outlives_the_command(number: signal.Signals, tmp_path: Path) -> None:
    mark = uuid.uuid4().hex
    process = subprocess.Popen(
        command("compare", PAGE, "--steps", 100_000, "--only", "fsq", *SMALL),
        cwd=tmp_path,
        env=environment(**{MARK: mark}),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while len(processes(mark)) < 2:  # the second one trains
        assert process.poll() is None, process.communicate()[1][-3000:]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(1)
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode == (128 + number if number != signal.SIGKILL else -number)
    deadline = time.monotonic() + 60
    while processes(mark):
        assert time.monotonic() < deadline, "a process trains on"
        time.sleep(0.1)
