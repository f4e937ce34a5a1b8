"""A resolved config as a page: the page loads to the same config, and a run keeps one under its page's own name."""

import json
from pathlib import Path

import pytest

from vq import config
from vq.config.writing import HEADER, WIDTH, page_text
from vq.slots import CodeName

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "configs").rglob("*.py"))


@pytest.mark.parametrize("page", PAGES, ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_every_page_is_written_and_loaded_as_the_same_config(page: Path, tmp_path: Path) -> None:
    loaded = config.load(page)
    written = tmp_path / page.name
    written.write_text(page_text(loaded.to_dict()))
    again = config.load(written)
    assert config.to_json(again) == config.to_json(loaded)  # the order of the keys included
    assert all(type(node["type"]) is CodeName for node in config.nodes(again.to_dict()))
    lines = written.read_text().splitlines()
    assert not [line for line in lines if len(line) > WIDTH and len(line.split('"')) < 3]
    assert any(line.startswith("from vq.") for line in lines)


def test_classes_are_imported_and_sections_are_readable() -> None:
    tree = {
        "tokenizer": {
            "type": "vq.tokenizers.ImageTokenizer",
            "encoder": {"type": "vq.networks.CNNEncoder", "base_width": 8, "multipliers": [1, 2]},
            "quantizer": {"type": "FiniteScalarQuantizer", "levels": [8, 5, 5, 5]},
        },
        "train_step": {
            "type": "vq.engine.ReconstructionStep",
            "losses": {},
            "optimizer": {"type": "torch.optim.Adam"},
        },
    }
    assert page_text(tree) == HEADER + (
        "\n"
        "from torch.optim import Adam\n"
        "\n"
        "from vq.engine import ReconstructionStep\n"
        "from vq.networks import CNNEncoder\n"
        "from vq.tokenizers import ImageTokenizer\n"
        "\n"
        "tokenizer = dict(\n"
        "    type=ImageTokenizer,\n"
        "    encoder=dict(type=CNNEncoder, base_width=8, multipliers=[1, 2]),\n"
        '    quantizer=dict(type="FiniteScalarQuantizer", levels=[8, 5, 5, 5]),\n'
        ")\n"
        "\n"
        "train_step = dict(type=ReconstructionStep, losses=dict(), optimizer=dict(type=Adam))\n"
    )


def test_unusual_keys_and_values_survive(tmp_path: Path) -> None:
    values = {
        "kernel-size": 3,
        "class": None,
        "text": "a \"quoted\" 'one' \\ \n\u2028 \udc80 é",
        "numbers": [float("inf"), -float("inf"), 1e-30, -0.0, True, 2**70],
        "nested": {"": {}, "empty": []},
    }
    tree = {"trainer": {"type": "torch.nn.Module", "values": values}}
    (tmp_path / "page.py").write_text(page_text(tree))
    assert config.load(tmp_path / "page.py").to_dict() == tree


def test_classes_of_one_name_get_names_of_their_own(tmp_path: Path) -> None:
    tree = {
        "train_step": {
            "type": "vq.engine.ReconstructionStep",
            "optimizer": {"type": "torch.optim.Adam"},
            "schedule": {"type": "torch.optim.adam.Adam"},
            "losses": {"l1": {"type": "vq.losses.reconstruction.L1Loss"}},  # a name of version 0.1
        }
    }
    (tmp_path / "page.py").write_text(page_text(tree))
    text = (tmp_path / "page.py").read_text()
    assert "from torch.optim.adam import Adam as Adam_2\n" in text
    assert "from vq.losses import L1Loss\n" in text
    found = config.load(tmp_path / "page.py").to_dict()["train_step"]
    assert (found["optimizer"]["type"], found["schedule"]["type"]) == (
        "torch.optim.Adam",
        "torch.optim.adam.Adam",
    )


@pytest.fixture
def page(tmp_path: Path) -> Path:
    file = tmp_path / "vqgan.py"
    file.write_text(
        "from vq.engine import Trainer\noptions = dict(steps=1)\n"
        "trainer = dict(type=Trainer, max_steps=options['steps'])\n"
    )
    return file


def test_a_run_keeps_its_config_under_the_name_of_its_page(page: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    config.save(config.load(page, options={"steps": 5}), run)
    assert config.load(run / "vqgan.py").to_dict() == config.load(run / "config.json").to_dict()
    assert "max_steps=5" in (run / "vqgan.py").read_text()
    assert (run / "vqgan.py").read_text() == (run / "config_resolved.py").read_text()
    # A run that continues from its own data has the page's name no more, but the page stays up to date.
    config.save(config.load(run / "config.json", overrides={".trainer.max_steps": 7}), run)
    assert config.load(run / "vqgan.py").trainer.max_steps == 7
    assert "max_steps=5" in (run / "vqgan.py.1").read_text()
    assert (run / "config.py").read_text() == page.read_text()


def test_the_page_that_was_given_is_not_replaced(page: Path, tmp_path: Path) -> None:
    text = page.read_text()
    config.save(config.load(page), tmp_path)  # the page is in the folder of its run
    assert page.read_text() == text
    own = page.rename(tmp_path / "config.py")
    config.save(config.load(own), tmp_path)
    assert own.read_text() == text


def test_data_that_no_command_has_built_does_not_become_code(tmp_path: Path) -> None:
    """A page may name any class, a JSON file registered ones only; a training builds no contestants."""
    quantizer = {"type": "vq.quantizers.FiniteScalarQuantizer"}
    tokenizer = {"type": "vq.tokenizers.ImageTokenizer", "quantizer": quantizer}
    tree = {"contestants": {"a": {"tokenizer": tokenizer}}}
    (tmp_path / "config.json").write_text(json.dumps(tree))
    run = tmp_path / "run"
    run.mkdir()
    config.save(config.load(tmp_path / "config.json"), run)
    assert [file.name for file in run.iterdir()] == ["config.json"]
