"""Commands that a signal ends: code 128 + signal, whole files only, and what is done is not done again."""

import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import TINY, accepted, contents, refused, run, run_and_kill, run_and_stop
from PIL import Image

from vq.engine.jobs import following

MANY = ["--override", ".val_data.dataset.num_images:20000"]  # longer than the test


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stopping")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        accepted("train", "run", TINY, "--config-options", "max_steps:4")
    return folder


def is_logged(words: str) -> Callable[[Path], bool]:
    return lambda cwd: any(words in p.read_text() for p in (cwd / "work_dirs/run/val").glob("log.txt"))


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_val_ends_and_keeps_the_scores_it_has(folder: Path, number: signal.Signals) -> None:
    (folder / "work_dirs/run/val/log.txt").unlink(missing_ok=True)
    said = run_and_stop(["val", "run", *MANY], number, cwd=folder, when=is_logged("process x"))
    assert "Traceback" not in said
    assert not list((folder / "work_dirs/run/val").glob("*/metrics.json"))


FEW = ["--override", ".val_data.dataset.num_images:4000", "--images-per-shard", 32]


@pytest.fixture(scope="module")
def unbroken(folder: Path) -> dict[str, bytes]:
    """The token store of a command that no signal ended."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        accepted("tokenize", "run", *FEW, "--out", "unbroken")
    return contents(folder / "unbroken")


@pytest.mark.parametrize(
    ("number", "ranks"),
    [
        pytest.param(signal.SIGHUP, 1, marks=pytest.mark.slow),
        pytest.param(signal.SIGUSR1, 1, marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, 2, marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, 2, marks=pytest.mark.slow),
    ],
)
def test_tokenize_ends_and_goes_on_to_the_same_bytes(
    folder: Path,
    unbroken: dict[str, bytes],
    number: signal.Signals,
    ranks: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = folder / f"{number.name}_{ranks}"
    words = ["tokenize", "run", *FEW, "--out", store.name]
    run_and_stop(words, number, cwd=folder, when=lambda _: len(list(store.glob("*.bin"))) > 2, ranks=ranks)
    assert not (store / "manifest.json").exists()
    monkeypatch.chdir(folder)
    accepted(*map(str, words))
    assert contents(store) == unbroken


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_val_on_two_ranks_ends_and_goes_on_with_the_next_checkpoint(
    folder: Path, number: signal.Signals, tmp_path: Path
) -> None:
    shutil.copytree(folder / "work_dirs/run/checkpoints", tmp_path / "work_dirs/run/checkpoints")
    shutil.copy(folder / "work_dirs/run/config.json", tmp_path / "work_dirs/run")
    some = ["--override", ".val_data.dataset.num_images:6000"]
    first = tmp_path / "work_dirs/run/val/iter_2/metrics.json"
    run_and_stop(["val", "run", *some], number, cwd=tmp_path, when=lambda _: first.exists(), ranks=2)
    content, last = first.read_bytes(), tmp_path / "work_dirs/run/val/iter_4/metrics.json"
    assert not last.exists()
    run("val", "run", *some, cwd=tmp_path, ranks=2)
    assert first.read_bytes() == content
    broken = last.read_bytes()
    run("val", "run", *some, "--again", cwd=tmp_path, ranks=2)
    assert last.read_bytes() == broken


def test_val_scores_again_only_what_has_changed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    before = "scored before with the same weights, images and settings"
    pictures = folder / "pictures"
    pictures.mkdir()
    for i in range(4):
        Image.new("RGB", (16, 16), (9 * i, 0, 0)).save(pictures / f"{i}.png")
    own = ["--override", ".val_data.dataset:dict(type='vq.data.ImageFolder', root='pictures')"]
    metrics = folder / "work_dirs/run/val/iter_4/metrics.json"

    def is_scored(*words: object) -> bool:
        return before not in accepted("val", "run", "--load-from", "iter_4", *words)

    assert is_scored(*own)
    scores = json.loads(metrics.read_text())["scores"]
    assert not is_scored(*own)
    assert is_scored(*own, "--again")
    assert is_scored(*own, "--visual", "indices")
    assert is_scored()
    assert is_scored(*own)
    assert json.loads(metrics.read_text())["scores"] == scores
    Image.new("RGB", (16, 16), (99, 99, 0)).save(pictures / "3.png")
    assert is_scored(*own)
    assert json.loads(metrics.read_text())["scores"] != scores
    metrics.write_text(metrics.read_text()[:100])
    assert is_scored(*own)
    # One broken image is left out and named; when it is mended, it is counted.
    (pictures / "2.png").write_bytes(b"no picture")
    lenient = [".val_data.max_undecodable:0.5"]
    said = accepted("val", "run", *own, *lenient, "--load-from", "iter_4")
    assert "2.png" in said
    assert json.loads(metrics.read_text())["undecodable"] == ["2.png"]
    assert is_scored(*own, *lenient)


def test_a_validation_that_fails_names_the_image_and_keeps_earlier_scores(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    accepted("val", "run", "--load-from", "iter_2", "--again")
    metrics = folder / "work_dirs/run/val/iter_2/metrics.json"
    content = metrics.read_bytes()
    broken = folder / "broken"
    broken.mkdir()
    for i in range(2):
        (broken / f"{i}.png").write_bytes(b"no picture")
    own = ["--override", ".val_data.dataset:dict(type='vq.data.ImageFolder', root='broken')"]
    said = refused("val", "run", "--load-from", "iter_2", *own)
    assert "2 images, none can be decoded; the first is '0.png'" in said
    assert metrics.read_bytes() == content


def test_follow_ends_when_the_training_ended_early(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setattr(following, "POLL_SECONDS", 0.1)
    said = accepted("val", "run", "--follow", "--override", ".trainer.max_steps:100")
    assert "the training has ended before step 100; the last checkpoint here is that of step 4" in said
    assert {"iter_2", "iter_4"} <= {p.name for p in (folder / "work_dirs/run/val").iterdir()}


def test_follow_waits_while_the_training_goes_on_and_tells_a_kill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(following, "POLL_SECONDS", 0.1)
    training = following.Training(tmp_path / "work_dirs/run")
    assert training.is_running()  # it has not begun
    states: list[bool] = []

    def has_saved() -> bool:
        if (tmp_path / "work_dirs/run/checkpoints/iter_2").is_dir():
            states.append(training.is_running())
        return bool(states)

    run_and_kill("train", ["run", TINY, "--override", ".trainer.max_steps:100000"], cwd=tmp_path, ranks=1,
                 when=has_saved, delay=0)  # fmt: skip
    assert states == [True]
    assert not training.is_running()
    said = accepted("val", "run", "--follow")
    assert "the training ended without a message, by a crash or a kill, before step 100000" in said
