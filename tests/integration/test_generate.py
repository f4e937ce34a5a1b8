"""A generator as a user has it: trained on tokens, validated, asked for pictures, by the real commands."""

import json
import signal
from pathlib import Path

import pytest
import torch
from commands import RAY, ROOT, TINY, accepted, contents, needs_ray, refused, run, run_and_stop

import vq
from vq.errors import UserError
from vq.generators import Generator

PAGE = (ROOT / "tests" / "tiny_generator_page.py").read_text()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("generator")
    (folder / "page.py").write_text(PAGE)
    run("train", "run", TINY, "--config-options", "max_steps:4", cwd=folder)
    for split in ([], ["--train"]):
        run("tokenize", "run", TINY, *split, cwd=folder)
    run("train", "writer", "page.py", cwd=folder)
    return folder


@pytest.mark.slow
def test_validation_says_how_well_indices_are_proposed(folder: Path) -> None:
    run("val", "writer", "page.py", "--load-from", "iter_4", cwd=folder)
    record = json.loads((folder / "work_dirs/writer/val/iter_4/metrics.json").read_text())
    assert {"loss", "token_perplexity", "token_accuracy"} <= set(record["scores"])
    assert 0 < record["scores"]["loss"] < 3.5
    assert (folder / "work_dirs/writer/val/iter_4/reconstructions.png").is_file()


@pytest.mark.slow
def test_pictures_are_the_same_on_two_ranks_and_in_python(folder: Path) -> None:
    asked = [
        "writer",
        "page.py",
        "--load-from",
        "iter_4",
        "--classes",
        "1",
        "3",
        "--num-images",
        "5",
        "--seed",
        "7",
        "--batch-size",
        "1",  # products of another size round differently, and the ranks' last batches are smaller
    ]
    run("generate", *asked, "--out", "one", cwd=folder)
    run("generate", *asked, "--out", "two", cwd=folder, ranks=2)
    names = sorted(p.name for p in (folder / "one").glob("class*.png"))
    assert names == [f"class{c:04d}_{i:05d}.png" for c, n in ((1, 3), (3, 2)) for i in range(n)]
    for name in names:
        assert (folder / "one" / name).read_bytes() == (folder / "two" / name).read_bytes()
    assert (folder / "one_grid.png").read_bytes() == (folder / "two_grid.png").read_bytes()
    generator = vq.load_generator(folder / "work_dirs/writer")
    assert isinstance(generator, Generator)
    with pytest.raises(UserError, match=r"got those of a generator; use vq\.load_generator"):
        vq.load(folder / "work_dirs/writer")
    drawn = generator.generate(torch.tensor([1]), seeds=torch.tensor([0]))
    assert vq.load(folder / "work_dirs/run").decode(drawn).shape == (1, 3, 16, 16)


@needs_ray
@pytest.mark.slow
def test_pictures_of_the_workers_of_ray_are_the_same(folder: Path) -> None:
    words = ["writer", "page.py", "--num-images", "14", "--batch-size", "3"]
    run("generate", *words, "--out", "alone", cwd=folder)
    run("generate", *words, "--out", "spread", *RAY, cwd=folder)
    assert contents(folder / "alone") == contents(folder / "spread")
    assert (folder / "alone_grid.png").read_bytes() == (folder / "spread_grid.png").read_bytes()


def test_images_of_converted_weights_have_a_folder_of_their_own(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    asked = ["writer", "--load-from", "iter_4", "--num", "2", "--out", "small"]
    assert "int8: 3,584 weights of the generator" in accepted("generate", *asked, "--weight-dtype", "int8")
    assert json.loads((folder / "small/samples.json").read_text())["weight_dtype"] == "int8"
    assert "weight_dtype" in refused("generate", *asked)


def test_what_cannot_be_is_refused_before_any_work(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    wrong = refused("generate", "writer", "page.py", "--classes", "4")
    assert "--classes: expected numbers in [0, 4), got [4]" in wrong
    for words, expected in (
        ("--top-k -1", "top_k: expected a whole number of at least 1, got -1"),
        ("--top-p 2", "top_p: expected a number in (0, 1], got 2.0"),
        ("--temperature nan", "temperature: expected a finite number of at least 0, got nan"),
        ("--cfg -1", "expected a finite scale of at least 0, got -1.0"),
        ("--override .evaluator.sampling:dict(nope=1)", "evaluator.sampling: "),
        ("--out /", "expected a folder with a name"),
        ("--weight-dtype int8 --autocast", "--weight-dtype and --autocast exclude each other"),
        (
            "--weight-dtype float8 --device cpu",
            "float8: expected a CUDA device of compute capability 8.9 or later",
        ),
    ):
        assert expected in refused("generate", "writer", *words.split())
    assert not (folder / "work_dirs/writer/generated").exists()
    wrong = refused("train", "x", "page.py", "--dry-run", "--override", ".evaluator.sampling:dict(top_k=-1)")
    assert "top_k: expected a whole number" in wrong
    for words in ("--tokenize", "--visual image"):
        assert "the page trains a generator" in refused("val", "writer", *words.split())
    assert "has no section generator" in refused("generate", "run", str(TINY))
    nowhere = refused("train", "x", "page.py", "--config-options", "it_state_dict::work_dirs/nowhere")
    assert "work_dirs/nowhere" in nowhere
    run("train", "other", TINY, "--config-options", "max_steps:4", "--seed", "1", cwd=folder)
    other = refused("train", "x", "page.py", "--config-options", "it_state_dict::work_dirs/other")
    assert "was made by a tokenizer with the checksum" in other
    grid = refused("train", "x", "page.py", "--override", ".generator.grid:[4, 4]")
    assert "the grid of the generator must be that of the tokens" in grid or "set generator.grid" in grid
    size = refused("train", "x", "page.py", "--override", ".generator.vocabulary_size:8")
    assert "has indices below 16, the generator is made for 8" in size
    classes = refused("train", "x", "page.py", "--override", ".generator.num_classes:2")
    assert "has 4 classes, the generator 2" in classes
    assert ROOT.is_dir()


@pytest.mark.parametrize(
    ("number", "ranks"),
    [
        pytest.param(signal.SIGUSR1, 1, marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, 2, marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, 2, marks=pytest.mark.slow),
    ],
)
def test_a_signal_ends_it_and_it_goes_on_to_the_same_pictures(
    folder: Path, number: signal.Signals, ranks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["generate", "writer", "--num-images", "16", "--batch-size", "1"]
    pictures = folder / f"{number.name}_{ranks}"
    broken = [*words, "--out", pictures.name]
    run_and_stop(
        broken, number, cwd=folder, when=lambda _: len(list(pictures.glob("*.png"))) > 2, ranks=ranks
    )
    assert not (pictures / "samples.json").exists()
    monkeypatch.chdir(folder)
    for out in (pictures.name, "unbroken"):
        accepted(*words, "--out", out)
    assert contents(pictures) == contents(folder / "unbroken")
    assert Path(f"{pictures.name}_grid.png").read_bytes() == Path("unbroken_grid.png").read_bytes()


@pytest.mark.slow
def test_generators_are_compared_by_a_loss_of_which_less_is_better(folder: Path) -> None:
    (folder / "orders.py").write_text(
        "_base_ = 'page.py'\n"
        "from vq.engine import Comparison\n"
        "contestants = dict(rows=dict(), backwards={'.generator.order': list(range(63, -1, -1))})\n"
        "comparison = dict(type=Comparison, baseline='rows', score='loss', seeds=(0,))\n"
    )
    run("compare", "orders.py", cwd=folder)
    rows = [json.loads(file.read_text()) for file in (folder / "experiments/orders/rows").iterdir()]
    losses = {row["name"]: row["scores"]["loss"] for row in rows}
    assert losses.keys() == {"rows", "backwards"}
    table = (folder / "experiments/orders/table.md").read_text().splitlines()
    best = next(line for line in table if line.startswith("| 1 |"))
    assert f"| {min(losses, key=losses.__getitem__)} |" in best
