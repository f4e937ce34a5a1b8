"""Old names of modules import the modules under their new names."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from vq import config
from vq.moved import MOVED
from vq.quantizers import ReplaceDeadCodes
from vq.registry import build

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("old", sorted(MOVED))
def test_an_old_name_imports_the_module_under_its_new_name(old: str) -> None:
    new = importlib.import_module(MOVED[old])
    assert importlib.import_module(old) is new
    assert new.__name__ == MOVED[old]
    assert new.__spec__ is not None
    assert new.__spec__.name == MOVED[old]
    parent, _, name = old.rpartition(".")
    folder = ROOT / parent.replace(".", "/")
    assert not (folder / f"{name}.py").exists(), "the old name is in use again"
    assert not (folder / name).exists(), "the old name is in use again"


def test_an_old_name_is_enough_in_a_program_of_its_own() -> None:
    code = (
        "from vq.engine.schedules import WarmupCosine; from vq.engine import assemble, Constant; "
        "import vq.engine.steps.schedules as new; "
        "assert new.WarmupCosine is WarmupCosine; assemble.make_tokenizer"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=60)


def test_a_page_may_name_a_module_that_has_moved(tmp_path: Path) -> None:
    page = tmp_path / "page.py"
    text = (ROOT / "configs" / "ema" / "1024_emoji.py").read_text()
    names = [line for line in text.splitlines() if line.startswith("from vq.quantizers import")]
    others = names[0].replace("ReplaceDeadCodes, ", "")
    assert others != names[0]
    page.write_text(text.replace(names[0], f"{others}\nfrom vq.quantizers.revival import ReplaceDeadCodes"))
    tree = config.load(page).to_dict()
    revival = tree["tokenizer"]["quantizer"]["codebook"]["revival"]
    assert revival["type"] == "vq.quantizers.revival.ReplaceDeadCodes"
    assert isinstance(build(revival, path="tokenizer.quantizer.codebook.revival"), ReplaceDeadCodes)
