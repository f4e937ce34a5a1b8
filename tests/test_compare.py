"""Experiments: contestants are runs of `vq train`, rows are computed once, and what a difference is worth."""

import base64
import csv
import hashlib
import json
import math
import signal
import subprocess
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import MARK, ROOT, command, environment, processes, refused, run
from safetensors.torch import load_file

from vq import config
from vq.engine.assembly import make_tokenizer
from vq.engine.comparison.contestant import VERSION, Contestant, ContestantError, contestants_of, sizes_of
from vq.engine.comparison.significance import difference, interval, ranks
from vq.engine.comparison.table import results_of
from vq.tokenizers.checkpoint import save_weights

PAGE = ROOT / "configs" / "compare" / "league.py"
PICTURES = "dict(type='vq.data.ProceduralDataset', num_images=64, image_size=32)"
SMALL = [
    *("--override", ".train_data.batch_size:8"),
    *(f".val_data.dataset:{PICTURES}", f".train_data.dataset:{PICTURES}"),
]
TINY = """
_base_ = "tiny.py"

from vq.engine import Comparison
from vq.quantizers import GumbelQuantizer

contestants = dict(
    tiny=dict(),
    gumbel=dict(tokenizer=dict(quantizer=dict(type=GumbelQuantizer, size=16, dim=4))),
    slow={".train_step.optimizer.lr": 1e-5},
)
comparison = dict(type=Comparison, seeds=(3, 4), score="psnr")
"""


@pytest.fixture
def page(tmp_path: Path) -> Path:
    text = (ROOT / "tests" / "tiny_page.py").read_text()
    (tmp_path / "tiny.py").write_text(text)
    (tmp_path / "page.py").write_text(TINY)
    return tmp_path / "page.py"


def accepted_rows(folder: Path) -> dict[str, dict[str, Any]]:
    return {file.stem: json.loads(file.read_text()) for file in sorted((folder / "rows").glob("*.json"))}


def weights(run: Path, step: int) -> dict[str, torch.Tensor]:
    return load_file(run / "checkpoints" / f"iter_{step}" / "model.safetensors")


def assert_equal_weights(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


@pytest.mark.slow
def test_a_contestant_is_the_run_of_vq_train(page: Path, tmp_path: Path) -> None:
    compare = ("compare", "page.py", "--only", "gumbel", "--seeds", 3)
    run(*compare, cwd=tmp_path)
    folder = tmp_path / "experiments" / "page"
    (row,) = accepted_rows(folder).values()
    (contestant,) = (tmp_path / "work_dirs" / "compare" / "page").glob("gumbel_seed3_*")

    gumbel = ".tokenizer.quantizer:dict(type='GumbelQuantizer',size=16,dim=4)"
    run("train", "own", "tiny.py", "--seed", 3, "--override", gumbel, cwd=tmp_path)
    own = tmp_path / "work_dirs" / "own"
    assert_equal_weights(weights(contestant, 8), weights(own, 8))
    last = json.loads((own / "metrics.jsonl").read_text().splitlines()[-1])
    assert row["scores"] == {key: last[key] for key in row["scores"]}
    assert row["train_command"].startswith(f"vq train compare/page/{contestant.name} ")
    assert row["stamp"]["num_images"] == 13
    assert row["stamp"]["weights"] == "averaged"
    assert row["measured"]["cpu_seconds"] > 0
    assert not row["is_continued"]
    assert row["command"] == "vq compare page.py --only gumbel --seeds 3"

    assert "| gumbel |" in (folder / "table.md").read_text()
    assert (folder / "plot.svg").read_text().startswith("<?xml")
    page_text = (folder / "report.html").read_text()
    picture = base64.b64encode((contestant / "images" / "iter_8.png").read_bytes()).decode()
    assert picture in page_text

    (file,) = (folder / "rows").iterdir()
    before = file.stat().st_mtime_ns
    run(*compare, cwd=tmp_path)  # nothing is trained again: the row is there
    assert file.stat().st_mtime_ns == before


@pytest.mark.slow
def test_a_table_of_contestants_and_seeds(page: Path, tmp_path: Path) -> None:
    run("compare", page, cwd=tmp_path)
    folder = tmp_path / "experiments" / "page"
    assert set(accepted_rows(folder)) == {f"{n}_seed{s}" for n in ("tiny", "gumbel", "slow") for s in (3, 4)}
    with (folder / "table.csv").open() as file:
        rows = {row["name"]: row for row in csv.DictReader(file)}
    assert rows["tiny"]["difference"] == ""
    assert float(rows["slow"]["psnr"]) < float(rows["tiny"]["psnr"])
    assert {row["seeds"] for row in rows.values()} == {"2"}


@pytest.mark.slow
def test_a_killed_experiment_continues_where_it_was(page: Path, tmp_path: Path) -> None:
    words = [page, "--steps", 60, "--only", "slow", "--seeds", 3, "--name", "killed"]
    runs = tmp_path / "work_dirs" / "compare" / "killed"
    mark = uuid.uuid4().hex
    process = subprocess.Popen(
        command("compare", *words), cwd=tmp_path, env=environment(**{MARK: mark}), stderr=subprocess.DEVNULL
    )
    wait_until(lambda: any(runs.glob("slow*/checkpoints/iter_6")), process)
    process.kill()
    process.wait(timeout=60)
    wait_until(lambda: not processes(mark))
    assert not list((tmp_path / "experiments").rglob("*.json"))
    run("compare", *words, cwd=tmp_path)
    (row,) = accepted_rows(tmp_path / "experiments" / "killed").values()
    assert row["is_continued"]
    slow = [".trainer.max_steps:60", ".train_step.optimizer.lr:1e-5"]
    run("train", "own", "tiny.py", "--seed", 3, "--override", *slow, cwd=tmp_path)
    (contestant,) = runs.glob("slow*")
    assert_equal_weights(weights(contestant, 60), weights(tmp_path / "work_dirs" / "own", 60))


def wait_until(holds: Callable[[], bool], process: subprocess.Popen[Any] | None = None) -> None:
    deadline = time.monotonic() + 120
    while not holds():
        assert process is None or process.poll() is None, "the command has ended"
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_training_outlives_the_command(number: signal.Signals, tmp_path: Path) -> None:
    mark = uuid.uuid4().hex
    process = subprocess.Popen(
        command("compare", PAGE, "--steps", 100_000, "--only", "fsq", "--seeds", 0, *SMALL),
        cwd=tmp_path,
        env=environment(**{MARK: mark}),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_until(lambda: any(tmp_path.glob("work_dirs/compare/*/fsq_seed0_*/metrics.jsonl")), process)
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode == (128 + number if number != signal.SIGKILL else -number)
    wait_until(lambda: not processes(mark))
    saved = list(tmp_path.glob("work_dirs/compare/*/fsq_seed0_*/checkpoints/iter_*"))
    assert bool(saved) == (number != signal.SIGKILL)  # `every` is 200, and no step of that number was reached


def test_what_is_refused(tmp_path: Path, page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "has no contestant 'fsk'; there are: vq_uniform" in refused("compare", PAGE, "--only", "fsk")
    assert "expected a section contestants" in refused("compare", ROOT / "configs" / "fsq" / "1000_emoji.py")
    assert "--seeds 0 0: a value is given twice" in refused("compare", PAGE, "--seeds", 0, 0)
    assert "--steps: expected at least 1, got 0" in refused("compare", PAGE, "--steps", 0)
    (tmp_path / "file").write_text("x")
    assert "file is a file, and a folder is needed" in refused("compare", PAGE, "--out", "file/x")
    score = (
        ".comparison.score::fid",
        "comparison.score: expected a score by which the evaluator of 'slow' can rank (codebook",
    )
    baseline = (
        ".comparison.baseline::tony",
        "comparison.baseline: expected one of tiny, gumbel, slow, got 'tony'",
    )
    seeds = (".comparison.seeds:[1,1]", "expected different seeds, at least one, got (1, 1)")
    for override, message in (score, baseline, seeds):
        assert message in refused("compare", page, "--override", override)
    features = ".contestants.slow:dict(tokenizer=dict(type='vq.tokenizers.FeatureTokenizer'))"
    assert "contestants.slow.tokenizer: cannot build" in refused("compare", page, "--override", features)


def test_an_error_of_a_training_names_its_contestant(page: Path, tmp_path: Path) -> None:
    wrong = ".train_data.dataset:dict(type='vq.data.ImageFolder',root='nowhere')"
    done = run("compare", page, "--only", "slow", "--seeds", 3, "--override", wrong, cwd=tmp_path, expect=2)
    assert "contestant 'slow', seed 3: train_data: ImageFolder: expected a folder of images" in done.stderr


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            "dict(type=GumbelQuantizer)",
            r"contestants\.a: expected changes of the page, such as dict\(tokenizer",
        ),
        ("dict(tokeniser=dict())", r"contestants\.a: unknown section 'tokeniser'; did you mean 'tokenizer'"),
        ("dict(contestants=dict())", r"contestants\.a: unknown section 'contestants'"),
        (
            "dict(train_data=dict(batch_sise=4))",
            r"page\.py:4: contestants\.a\.train_data: cannot build .*\n.*'batch_sise'; did you mean 'batch_size'",
        ),
        ("{'.trainer.max_step': 3}", r"contestants\.a: override \.trainer\.max_step: trainer has no key"),
        ("dict(trainer=dict(max_steps='x'))", r"contestants\.a\.trainer\.max_steps: expected int, got 'x'"),
        ("dict(arguments=['--seed'])", r"contestants\.a\.arguments: expected a list of some of --autocast"),
        ("dict(arguments='--autocast')", r"contestants\.a\.arguments: expected a list of some of --autocast"),
    ],
)
def test_changes_that_the_page_cannot_have(page: Path, changes: str, message: str) -> None:
    page.write_text(
        f'_base_ = "tiny.py"\n\nfrom vq.quantizers import GumbelQuantizer\ncontestants = dict(a={changes})\n'
        "_used = GumbelQuantizer\n"
    )
    with pytest.raises(config.ConfigError, match=message):
        config.load(page)


def test_a_contestant_is_the_page_with_its_changes(page: Path) -> None:
    page.write_text(
        '_base_ = "tiny.py"\n\nfrom vq.quantizers import GumbelQuantizer\ncontestants = dict(\n'
        "    same=dict(),\n"
        "    merged=dict(train_data=dict(batch_size=4), trainer=dict(max_steps=3)),\n"
        "    replaced=dict(tokenizer=dict(quantizer=dict(type=GumbelQuantizer, size=8, dim=4))),\n"
        "    overridden={'.evaluator.metrics[0]': dict(type='SSIM'), 'arguments': ['--autocast']},\n)\n"
    )
    tree = config.load(page).to_dict()
    base = config.load(page.with_name("tiny.py")).to_dict()
    assert config.contestant_tree(tree, "same") == base
    merged = config.contestant_tree(tree, "merged")
    assert merged["train_data"] == {**base["train_data"], "batch_size": 4}
    assert merged["trainer"] == {**base["trainer"], "max_steps": 3}
    replaced = config.contestant_tree(tree, "replaced")
    assert replaced["tokenizer"]["quantizer"] == {
        "type": "vq.quantizers.GumbelQuantizer",
        "size": 8,
        "dim": 4,
    }
    assert replaced["tokenizer"]["encoder"] == base["tokenizer"]["encoder"]
    assert (
        config.contestant_tree(tree, "overridden")["evaluator"]["metrics"][1:]
        == base["evaluator"]["metrics"][1:]
    )
    assert config.contestant_arguments(tree, "overridden") == ["--autocast"]
    assert config.load(page.with_name("tiny.py")).to_dict() == base


def test_a_contestant_may_name_another_trained_tokenizer(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    described = config.load(tmp_path / "tiny.py").to_dict()
    files = [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
    for seed, file in enumerate(files):
        torch.manual_seed(seed)
        save_weights(make_tokenizer(described).state_dict(), file, described)
    text = (ROOT / "tests" / "tiny_generator_page.py").read_text()
    (tmp_path / "generator.py").write_text(text)
    page.write_text(
        '_base_ = "generator.py"\n\n'
        f"options = dict(it_state_dict={str(files[0])!r})\n"
        "contestants = dict(same=dict(), "
        f"other={{'.tokenizer.weights[0]': {str(files[1])!r}}},\n"
        "    odd={'.generator.transformer.num_heads': 3})\n"
    )
    tree = config.load(page).to_dict()
    with pytest.raises(config.ConfigError, match=r"contestants\.odd\.generator.*num_heads to divide width"):
        contestants_of(tree, "page", [0])
    del tree["contestants"]["odd"]
    found = {each.name: each.config["tokenizer"] for each in contestants_of(tree, "page", [0])}
    for name, file in zip(("same", "other"), files, strict=True):
        assert found[name]["weights"] == [str(file)]
        assert found[name]["sha256"] == [hashlib.sha256(file.read_bytes()).hexdigest()]


@pytest.mark.parametrize(
    ("name", "tokens"), [("f8_638_bits", 64), ("f16_638_bits", 16), ("latent_159_bits", 16)]
)
def test_tokens_and_bits_of_an_image(name: str, tokens: int) -> None:
    tree = config.load(PAGE.with_name("tradeoff.py")).to_dict()
    sizes = sizes_of(make_tokenizer(config.contestant_tree(tree, name)), (64, 64))
    indices = 16 * 4 if name == "f16_638_bits" else tokens
    assert sizes["tokens_per_image"] == tokens
    assert sizes["bits_per_image"] == pytest.approx(indices * math.log2(1000))
    assert sizes["bits_per_token"] == pytest.approx(indices / tokens * math.log2(1000))


def test_a_row_of_another_page_version_or_seed_is_not_used(page: Path, tmp_path: Path) -> None:
    def contestant(**changes: Any) -> Contestant:
        given = {"experiment": "e", "name": "a", "seed": 0, "config": {"x": 1}, "arguments": []} | changes
        return Contestant(**given)

    own = contestant()
    row = {
        "name": "a",
        "seed": 0,
        "page_sha256": own.page_sha256,
        "version": VERSION,
        "scores": {"psnr": 1.0},
    }
    file = own.row_file(tmp_path)
    file.parent.mkdir()
    file.write_text(json.dumps(row))
    assert own.stored_row(tmp_path) == row
    for other in (contestant(config={"x": 2}), contestant(arguments=["--autocast"])):
        assert other.row_file(tmp_path) == file
        assert other.stored_row(tmp_path) is None
    assert contestant(seed=1).stored_row(tmp_path) is None
    file.write_text(json.dumps({**row, "version": "vq 0.0"}))
    assert own.stored_row(tmp_path) is None
    for damaged in ("{", "[]", '{"scores": {"psnr": true}}'):
        file.write_text(damaged)
        with pytest.raises(ContestantError, match=r"not a row of vq compare: .*; remove it"):
            own.stored_row(tmp_path)


def test_an_interval_is_that_of_students_t() -> None:
    found = interval([1.0, 2.0, 4.0])
    deviation = math.sqrt(((1 - 7 / 3) ** 2 + (2 - 7 / 3) ** 2 + (4 - 7 / 3) ** 2) / 2)
    assert found.mean == pytest.approx(7 / 3)
    assert found.half == pytest.approx(4.302653 * deviation / math.sqrt(3), rel=1e-6)  # 97.5 % at 2 degrees
    assert interval([5.0]).half is None


def test_a_difference_is_paired_by_seed() -> None:
    ours, theirs = {0: 10.0, 1: 20.0, 2: 30.0, 7: 0.0}, {0: 9.0, 1: 19.1, 2: 28.9, 8: 50.0}
    found = difference(ours, theirs)  # far smaller than the spread over the seeds
    assert found is not None
    assert found.num_seeds == 3
    assert found.mean == pytest.approx(1.0)
    assert found.excludes_zero
    assert difference({0: 1.0}, {1: 1.0}) is None
    single = difference({0: 1.0}, {0: 5.0})
    assert single is not None
    assert not single.excludes_zero


def test_contestants_that_are_not_told_apart_share_a_rank() -> None:
    scores = {
        "best": {0: 10.0, 1: 11.0, 2: 12.0},
        "tie": {0: 10.1, 1: 10.8, 2: 12.0},
        "worse": {0: 8.0, 1: 9.1, 2: 10.0},
    }
    assert ranks(scores, is_higher_better=True) == {"best": 1, "tie": 1, "worse": 3}
    assert ranks(scores, is_higher_better=False) == {"best": 2, "tie": 2, "worse": 1}
    rows = [
        {"name": name, "seed": seed, "scores": {"psnr": value}}
        for name, own in scores.items()
        for seed, value in own.items()
    ]
    results = results_of("title", rows, score="psnr", baseline="best", is_higher_better=True)
    assert [(line.name, line.is_tie) for line in results.lines] == [
        ("best", False),
        ("tie", True),
        ("worse", False),
    ]
    assert results.cells()[1][3].endswith("(tie)")
    assert results.cells()[2][3].startswith("-1.97 ± ")
