"""What a user gets wrong: one clear message, exit code 2, before any training."""

import shutil
from pathlib import Path

import pytest
from commands import TINY, run
from PIL import Image

FOLDER = ".train_data.dataset:dict(type='vq.data.ImageFolder', root='pictures')"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    run("train", "run", TINY, cwd=folder)
    return folder


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["x", "nowhere.py"], "nowhere.py: there is no such config"),
        (["../x", TINY], "NAME '../x': expected a relative name"),
        (["/x", TINY], "NAME '/x'"),
        (["x", TINY, "--override", ".tokenizer.encoder.type::CNNEncodr"], "did you mean 'CNNEncoder'"),
        (["x", TINY, "--override", ".tokenizer.encoder.multipliers:[1, 2, 2]"], "the encoder scales down by 4"),
        (["x", TINY, "--override", ".train_data.dataset.image_size:15"], "train_data: its images are 15 x 15"),
        (["x", TINY, "--override", ".train_data.batch_size:65"], "at most the 64 images"),
        (["x", TINY, "--override", ".train_step.weights:dict(l1=1.0)"], "expected one for each of"),
        (["x", TINY, "--override", FOLDER], "pictures"),
        (["x", TINY, "--load-model-from", "nowhere.safetensors"], "there is no such file"),
        (["x", TINY, "--load-from", "nowhere"], "nowhere: damaged: MANIFEST.json is missing"),
        (["x", TINY, "--config-options", "max_step:1"], "no option 'max_step'; did you mean 'max_steps'"),
    ],
)
def test_refused_with_code_2(arguments: list[object], words: str, tmp_path: Path) -> None:
    done = run("train", *arguments, cwd=tmp_path, expect=2)
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.rglob("checkpoints"))


def test_an_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    done = run("train", "x", TINY, "--override", FOLDER, cwd=tmp_path, expect=2)
    assert "train_data: " in done.stderr
    assert "pictures" in done.stderr


def test_images_that_cannot_be_decoded_are_named_and_counted(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    for i in range(40):
        Image.new("RGB", (16, 16), (6 * i, 255 - 6 * i, 99)).save(tmp_path / "pictures" / f"{i:02}.png")
    (tmp_path / "pictures" / "07.png").write_bytes(b"not an image")
    lenient = ".train_data.max_undecodable:0.5"
    run("train", "x", TINY, "--override", FOLDER, lenient, cwd=tmp_path)
    log = (tmp_path / "work_dirs" / "x" / "log.txt").read_text()
    assert log.count("cannot decode") == 1
    assert "07.png" in log
    for i in range(20, 40):
        (tmp_path / "pictures" / f"{i}.png").write_bytes(b"")
    done = run("train", "y", TINY, "--override", FOLDER, cwd=tmp_path, expect=2)
    assert "could not be decoded" in done.stderr or "cannot be decoded" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_finished_run_is_not_overwritten(trained: Path) -> None:
    done = run("train", "run", TINY, cwd=trained, expect=2)
    assert "already holds a trained run; continue it with --auto-resume" in done.stderr


def test_a_checkpoint_of_another_architecture(trained: Path) -> None:
    wider = ["--override", ".tokenizer.encoder.base_width:16", ".tokenizer.decoder.base_width:16"]
    weights = "work_dirs/run/checkpoints/iter_8"
    for command in (["train", "wide", TINY, "--load-model-from", weights], ["train", "wide2", TINY, "--load-from", weights],
                    ["test", "wide3", TINY, "--load-model-from", weights]):  # fmt: skip
        done = run(*command, *wider, cwd=trained, expect=2)
        assert "not the weights of this model" in done.stderr
        assert "of another shape" in done.stderr


def test_missing_and_unexpected_weights_must_be_allowed_by_name(trained: Path) -> None:
    lone = ["--override", ".tokenizer.quantizer:dict(type='vq.quantizers.FiniteScalarQuantizer', levels=[4, 4, 3, 3])"]
    weights = ["--load-model-from", "work_dirs/run/checkpoints/iter_8"]
    metrics = [".evaluator.metrics[1].codebook_size:144", ".evaluator.metrics[2].codebook_size:144"]
    done = run("train", "fsq", TINY, *lone, *metrics, *weights, cwd=trained, expect=2)
    assert "unexpected (quantizer." in done.stderr
    run("train", "fsq", TINY, *lone, *metrics, *weights, "--allow-unexpected", "quantizer.*", cwd=trained)


def test_a_damaged_checkpoint_is_passed_over_or_refused(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained / "work_dirs", tmp_path / "work_dirs")
    newest = tmp_path / "work_dirs" / "run" / "checkpoints" / "iter_8"
    content = bytearray((newest / "model.safetensors").read_bytes())
    content[len(content) // 2] ^= 1  # one flipped bit
    (newest / "model.safetensors").write_bytes(content)
    done = run("train", "x", TINY, "--load-from", newest, cwd=tmp_path, expect=2)
    assert "model.safetensors has another checksum" in done.stderr
    done = run("val", "run", TINY, "--load-from", "iter_8", cwd=tmp_path, expect=2)
    assert "damaged" in done.stderr
    done = run("train", "run", TINY, "--auto-resume", cwd=tmp_path)
    assert "falling back to the one before" in done.stderr
    assert "6 steps are done" in done.stderr
    kept = {p.name for p in newest.parent.iterdir()}
    assert {"iter_8", "iter_8.replaced_1"} <= kept  # nothing is lost, not even what is damaged
