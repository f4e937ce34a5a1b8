"""Your own folder of images: the lines of README and docs/own_pictures.md run, and what is wrong is said."""

import importlib
import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from commands import ROOT, accepted, refused
from own_pictures import make_pictures
from PIL import Image

from vq import cli
from vq.data import TokenStore

LINE = ("train", "mine", "ema/1024_folder", "--config-options", "root::my_pictures", "image_size:64")
SMALL = {
    "train": (".train_data.num_workers:0", ".val_data.num_workers:0", ".trainer.max_steps:2"),
    "val": (".val_data.num_workers:0",),
}
"""Overrides that make the commands quick."""
LOSSES = (
    ".train_step.losses:dict(l1=dict(type='L1Loss'))",
    ".train_step.weights:dict(l1=1.0, quantizer=1.0)",
)
METRICS = (".evaluator.metrics:[dict(type='PSNR')]",)


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """60 images of many sizes in two class folders, of which 2 are broken, in the current folder."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for i in range(60):
        path = tmp_path / "my_pictures" / ("ant", "bee")[i % 2] / f"{i:02}.{('png', 'jpg')[i // 2 % 2]}"
        path.parent.mkdir(parents=True, exist_ok=True)
        height, width = (int(side) for side in rng.integers(20, 120, 2))
        Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(path)
    (tmp_path / "my_pictures" / "ant" / "00.png").write_bytes(b"")
    (tmp_path / "my_pictures" / "bee" / "31.jpg").write_bytes(b"no image")
    return tmp_path / "my_pictures"


def lines_of(page: str) -> list[list[str]]:
    """The `vq` command lines of a document that are about the folder `my_pictures`, from the first one on."""
    blocks = re.findall(r"```bash\n(.*?)```", (ROOT / page).read_text(), re.S)
    text = next(block for block in blocks if "root::my_pictures" in block)
    lines = [shlex.split(line, comments=True) for line in text.replace("\\\n", " ").splitlines()]
    return [line[1:] for line in lines if line[:1] == ["vq"]]


def test_the_lines_of_the_readme_train_on_and_score_the_users_pictures(pictures: Path) -> None:
    lines = lines_of("README.md")
    assert tuple(lines[0]) == LINE
    assert lines[1] == ["val", "mine"]
    said = accepted(*lines[0], "--override", *SMALL["train"], *LOSSES, *METRICS)
    assert re.search(
        r"train_data: \d+ images; 2 classes \(ant, bee\); height x width \d+ x \d+ to \d+ x", said
    )
    assert "of 60 images are for validation, by the hash of their names (val_fraction=0.1)" in said
    accepted(*lines[1], "--override", *SMALL["val"])
    record = json.loads(Path("work_dirs/mine/val/iter_2/metrics.json").read_text())
    accepted("tokenize", "mine", "--train")
    accepted("tokenize", "mine")
    train, val = (TokenStore(Path("work_dirs/mine/tokens") / split) for split in ("train", "val"))
    assert record["num_images"] == len(val) > 0
    keys = [{store.key(i) for i in range(len(store))} for store in (train, val)]
    assert not keys[0] & keys[1]
    assert len(keys[0] | keys[1]) == 58
    assert train.manifest["class_names"] == val.manifest["class_names"] == ["ant", "bee"]
    args = importlib.import_module("vq.train").arguments().parse_args(["llama", "ar/llama_folder"])
    generator = cli.load_config(args).to_dict()["generator"]
    sizes = {name: generator[name] for name in ("vocabulary_size", "num_classes", "grid")}
    assert sizes == {"vocabulary_size": 1024, "num_classes": 2, "grid": [8, 8]}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["root::nowhere"], r"train_data: ImageFolder: .*at nowhere, found nothing.*--config-options root::FOLDER"),
        (["root::my_pictures/ant/02.jpg"], r"folder of images at my_pictures/ant/02.jpg, found a file"),
        (["root::my_pictures", "batch_size:64"], r"of at most the \d+ images of the set, got 64; lower it \(--over"),
        (["root::my_pictures", "image_size:60"], r"images are 60 x 60.*crop to 56 x 56"),
        (["root::my_pictures", "val_fraction:1.5"], r"expected val_fraction above 0 and below 1, got 1.5"),
        (["root::my_pictures", "channels:17"], r"expected channels from 1 to 16, got 17"),
    ],
)  # fmt: skip
def test_what_a_user_gets_wrong_is_one_error(pictures: Path, words: list[str], said: str) -> None:
    page = ["train", "mine", "ema/1024_folder", "--dry-run", "--config-options", *words]
    message = refused(*page, "--override", *SMALL["train"], *LOSSES, *METRICS)
    assert re.search(said, message), message
    assert "\n" not in message


def test_only_broken_images(pictures: Path) -> None:
    for path in pictures.rglob("*.*"):
        path.write_bytes(b"no image")
    message = refused(*LINE, "--dry-run", "--override", *SMALL["train"], *LOSSES, *METRICS)
    assert re.search(r"train_data: ImageLoader: \d+ images, none can be decoded; the first is 'ant/", message)


def test_too_many_broken_images_name_the_limit(pictures: Path) -> None:
    for path in list(pictures.rglob("*.*"))[:25]:
        path.write_bytes(b"no image")
    message = refused(*LINE, "--override", *SMALL["train"], *LOSSES, *METRICS)
    assert re.search(r"cannot be decoded, more than max_undecodable=20.0%; the first: ", message)


def test_grey_images(pictures: Path) -> None:
    options = ["root::my_pictures", "channels:1", "batch_size:16", "codebook_size:64"]
    accepted("train", "mine", "ema/1024_folder", "--config-options", *options, "--override", *SMALL["train"])
    encoder = json.loads(Path("work_dirs/mine/config.json").read_text())["tokenizer"]["encoder"]
    assert encoder["image_channels"] == 1


@pytest.mark.parametrize(
    ("missing", "said"),
    [
        (
            "tokens/train",
            r"train_data: work_dirs/mine/tokens/train: expected a finished token store.*vq tokenize NAME",
        ),
        (".", r"tokenizer: work_dirs/mine: there is no such file or folder"),
    ],
)
def test_a_generator_without_its_tokens_or_tokenizer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    if missing != ".":
        from vq import config
        from vq.engine.assembly import make_tokenizer
        from vq.tokenizers.checkpoint import save_weights

        tree = config.load(ROOT / "tests" / "tiny_page.py").to_dict()
        checkpoint = tmp_path / "work_dirs" / "mine" / "checkpoints" / "iter_1"
        checkpoint.mkdir(parents=True)
        save_weights(make_tokenizer(tree).state_dict(), checkpoint / "model.safetensors", tree)
    assert re.search(said, refused("train", "llama", "ar/llama_folder", "--dry-run"))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_whole_walk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every command of docs/own_pictures.md, in its order, on 200 pictures of which 5 are broken, with fewer steps."""
    monkeypatch.chdir(tmp_path)
    make_pictures(tmp_path / "my_pictures")
    lines = lines_of("docs/own_pictures.md")
    assert {"train", "val", "inference", "tokenize", "generate"} == {line[0] for line in lines}
    few_steps = {"train": ("--override", ".trainer.max_steps:30")}
    for line in lines:
        accepted(*line, *few_steps.get(line[0], ()))
    log = Path("work_dirs/mine/log.txt").read_text()
    assert "train_data: 176 images; 4 classes (faces, flags, objects, textures); " in log
    assert "(5 so far)" in log
    record = json.loads(Path("work_dirs/mine/val/iter_30/metrics.json").read_text())
    assert record["num_images"] == 24
    assert len(list(Path("work_dirs/mine_llama/generated/iter_30").glob("class*.png"))) == 16
