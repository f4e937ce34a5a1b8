"""Which config a command uses for a run: the run's own, or one that agrees with it, or a refusal with the keys."""

import json
import shutil
from pathlib import Path

import pytest
from commands import TINY, accepted, refused
from PIL import Image

from vq.data.stores.token_store import TokenStore

OWN = ".{}_data.dataset:dict(type='vq.data.ImageFolder', root='{}')"
TRAIN, VAL = OWN.format("train", "mine/train"), OWN.format("val", "mine/val")


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was trained on its user's pictures by overrides of a page that names others."""
    folder = tmp_path_factory.mktemp("own_pictures")
    for split, count in (("train", 9), ("val", 5)):
        for i in range(count):
            path = folder / "mine" / split / f"{split}_{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (16, 16), (20 * i, 255 - 20 * i, 99 + count)).save(path)
    shutil.copy(TINY, folder / "page.py")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        accepted("train", "own", "page.py", "--override", TRAIN, VAL, ".trainer.max_steps:2")
    return folder


@pytest.fixture
def folder(once: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(once, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def num_validated(folder: Path) -> int:
    record = json.loads((folder / "work_dirs/own/val/iter_2/metrics.json").read_text())
    return int(record["num_images"])


def test_without_a_config_the_runs_own_pictures_are_scored_and_tokenized(folder: Path) -> None:
    accepted("val", "own")
    assert num_validated(folder) == 5
    accepted("tokenize", "own", "--train")
    accepted("tokenize", "work_dirs/own/")  # the folder, as a shell completes it
    keys = [TokenStore(folder / "work_dirs/own/tokens" / split).key(0) for split in ("train", "val")]
    assert keys == ["train_0.png", "val_0.png"]
    accepted("test", "other", "--load-model-from", "work_dirs/own/checkpoints/iter_2")
    record = json.loads((folder / "work_dirs/other/test/metrics.json").read_text())
    assert record["num_images"] == 5
    accepted("inference", "own", "mine/val/val_0.png", "--out", "out")
    assert (folder / "out" / "val_0_indices.npy").is_file()


@pytest.mark.parametrize(
    "command",
    [
        ["val", "own", "page.py"],
        ["tokenize", "own", "page.py", "--train"],
        ["tokenize", "own", "page.py", "--load-model-from", "work_dirs/own"],
        [
            "test",
            "other",
            "page.py",
            "--load-model-from",
            "work_dirs/own/checkpoints/iter_2/model.safetensors",
        ],
        ["val", "own", "page.py", "--override", ".val_data.batch_size:2"],
        ["val", "own", "page.py", "--override", TRAIN],
    ],
)
def test_a_page_that_names_other_pictures_is_refused_with_the_keys(folder: Path, command: list[str]) -> None:
    before = sorted(p.name for p in (folder / "work_dirs").rglob("*"))
    said = refused(*command)
    assert said.startswith("page.py: is not the config that work_dirs/own/")
    assert ".val_data.dataset: {'type': 'vq.data.ProceduralDataset'" in said
    assert "instead of {'type': 'vq.data.ImageFolder', 'root': 'mine/val'}" in said
    assert "leave CONFIG out" in said
    assert "--as-given" in said
    assert (".train_data.dataset" in said) == (TRAIN not in command)
    assert ".val_data.batch_size" not in said
    assert sorted(p.name for p in (folder / "work_dirs").rglob("*")) == before


def test_what_the_command_line_asks_for_is_accepted(folder: Path) -> None:
    accepted("val", "own", "page.py", "--override", TRAIN, VAL)
    assert num_validated(folder) == 5
    accepted("val", "own", "--override", ".val_data.dataset.root::mine/train")
    assert num_validated(folder) == 9
    said = accepted("val", "own", "page.py", "--as-given")
    assert num_validated(folder) == 13  # the page's
    assert (
        "page.py is used as given, although it differs from work_dirs/own/config.json: .train_data.dataset"
        in said
    )
    accepted("val", "own", "work_dirs/own/config.json")
    assert num_validated(folder) == 5


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ("codebook_size, codebook_dim = 16, 4", "codebook_size, codebook_dim = 32, 4", ".codebook.size: 32"),
        ("batch_size=4", "batch_size=5", ".val_data.batch_size: 5 instead of 4"),
        ("transforms=[dict(type=RandomHorizontalFlip)]", "transforms=[]", ".train_data.transforms: []"),
        ("num_images=13", "num_images=12", ".val_data.dataset.num_images: 12 instead of 13"),
        ("shuffle=False,", "", ".val_data.shuffle: nothing instead of False"),
    ],
)
def test_a_page_that_was_edited_since_is_refused(folder: Path, old: str, new: str, key: str) -> None:
    accepted("train", "plain", "page.py", "--override", ".trainer.max_steps:2")
    page = (folder / "page.py").read_text()
    (folder / "page.py").write_text(page.replace(old, new))
    assert (folder / "page.py").read_text() != page
    assert key in refused("val", "plain", "page.py")
    accepted("val", "plain")


def test_sections_that_do_not_matter_may_differ(folder: Path) -> None:
    changes = [".trainer.log_every:1", ".evaluator.num_grid_images:2", ".checkpointer.every:1"]
    accepted("train", "plain", "page.py", "--override", ".trainer.max_steps:2", *changes)
    accepted("val", "plain", "page.py", "--config-options", "num_workers:1", "max_steps:3")
    said = refused("val", "plain", "--config-options", "num_workers:1")
    assert "a JSON config has no options; use --override" in said


def test_without_a_run_the_nearest_is_named(folder: Path) -> None:
    assert "did you mean 'own'" in refused("val", "ownn")
    assert "train it first with vq train ownn CONFIG" in refused("tokenize", "ownn")
    shutil.copy("work_dirs/own/checkpoints/iter_2/model.safetensors", "lone.safetensors")
    said = refused("test", "x", "--load-model-from", "lone.safetensors")
    assert "give the page they belong to as CONFIG" in said


def test_a_config_of_other_weights_is_refused_by_inference(folder: Path) -> None:
    (folder / "page.py").write_text(TINY.read_text().replace("num_blocks=1", "num_blocks=2"))
    command = ["inference", "page.py", "mine/val/val_0.png", "--load-model-from", "work_dirs/own"]
    assert ".tokenizer.encoder.num_blocks: 2 instead of 1" in refused(*command)
    accepted(*command, "--override", ".tokenizer.encoder.num_blocks:1", ".tokenizer.decoder.num_blocks:1")


def test_a_training_continues_with_its_own_config(folder: Path) -> None:
    longer = ["--override", ".trainer.max_steps:3"]
    page = (folder / "work_dirs/own/config.py").read_text()
    said = accepted("train", "own", "--auto-resume", "--dry-run", *longer)
    assert "plan: 3 steps of 8 images" in said
    assert "epochs of 9 images" in said  # of the run, not of the page
    said = accepted("train", "own", "--auto-resume", *longer)
    assert "2 steps are done" in said
    assert "step 3/3" in said
    assert (folder / "work_dirs/own/config.py").read_text() == page
    accepted("train", "copy", "--load-from", "work_dirs/own/checkpoints/iter_2")
    assert json.loads((folder / "work_dirs/copy/config.json").read_text())["trainer"]["max_steps"] == 2
    assert "already holds a trained run; continue it with --auto-resume" in refused("train", "own")


@pytest.mark.parametrize("words", [[], ["--auto-resume"], ["--dry-run"], ["--auto-resume", "--dry-run"]])
def test_a_training_without_a_config_needs_a_run(folder: Path, words: list[str]) -> None:
    said = refused("train", "ownn", *words)
    assert "expected a CONFIG, since there is no run of this name" in said
    assert "did you mean 'own'" in said
    assert not (folder / "work_dirs/ownn").exists()
