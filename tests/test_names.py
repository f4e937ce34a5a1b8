"""Names from outside are text wherever they are shown: in tables, figures, logs, pages, spreadsheets and file names."""

import csv
import io
import json
import logging
import os
import sys
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from matplotlib.text import Text as FigureText
from rich.console import Console

from tools import visualize_patches
from vq import weights
from vq.engine.callbacks import MetricsFile, TensorBoard, WandB
from vq.engine.comparison.plan import Comparison
from vq.engine.comparison.report import write_results
from vq.engine.evaluation.base import Evaluation
from vq.engine.evaluation.progress import progress_bar
from vq.engine.jobs import reference_statistics as reference
from vq.engine.jobs.score_report import show
from vq.engine.loop.launch import close_log, open_log
from vq.text import markdown, spreadsheet_cell

NASTY = "w[/q]<img src=x onerror=1>|$x^2$\n=1+1"
NOT_UTF8 = os.fsdecode(b"=\xe4[bold]")
TERMINAL = "\x1b]0;title\x07\u202e"
NAMES = [NASTY, NOT_UTF8, TERMINAL, "+1", "-1", "@x", "=cmd|' /C calc'!A0", "__x__", "`a`", "$a$"]


def row_of(name: str, psnr: float) -> dict[str, Any]:
    return {
        "name": name,
        "seed": 0,
        "page_sha256": "0" * 64,
        "train_command": f"vq train {NASTY}",
        "steps": 10,
        "scores": {"psnr": psnr, "codebook_usage": 0.5},
        "measured": {"cpu_seconds": 1.0, "bits_per_token": 4.0},
        "hardware": {"device": "cpu", "threads": 1, "torch": "2.15"},
        "command": f"vq compare {NASTY}",
    }


def is_one_line(text: str) -> bool:
    return "\n" not in text and text.isprintable()


def test_a_table_of_contestants(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[str] = []
    draw = FigureText.draw

    def noted(self: Any, *arguments: Any, **keywords: Any) -> Any:
        if not self.get_parse_math():
            drawn.append(self.get_text())
        return draw(self, *arguments, **keywords)

    monkeypatch.setattr(FigureText, "draw", noted)
    rows = [row_of(name, 20.0 - i) for i, name in enumerate(NAMES)]
    plan = Comparison(baseline=NAMES[0], question=f"title {NASTY}")
    files = write_results("experiment", rows, plan, tmp_path, is_higher_better=True)
    lines = files[0].read_text(encoding="utf-8").splitlines()
    table = [line for line in lines if line.startswith("| ")]
    assert len(table) == 1 + len(NAMES)
    cells = [line.replace(r"\\", "").replace(r"\|", "").split("|") for line in table]
    assert {len(row) for row in cells} == {len(cells[0])}
    assert r"w\[/q\]\<img src=x onerror=1\>\|\$x^2\$\\n=1+1" in table[1]
    assert all(is_one_line(line) for line in lines)
    with files[1].open(encoding="utf-8", newline="") as file:
        names = [row["name"] for row in csv.DictReader(file)]
    assert len(names) == len(NAMES)
    assert not any(name.startswith(tuple("=+-@\t\r")) for name in names)
    assert all(is_one_line(name) for name in names)
    shown = r"w[/q]<img src=x onerror=1>|$x^2$\n=1+1"
    assert {shown, f"title {shown}", f"not told apart from {shown}"} <= {*drawn}
    assert "<img src=x" not in files[3].read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "cell"), [("fsq", "fsq"), ("=1", "'=1"), (" =1", "' =1"), ("", ""), ("a=1", "a=1")]
)
def test_a_cell_of_a_spreadsheet(name: str, cell: str) -> None:
    assert spreadsheet_cell(name) == cell


def test_markdown_leaves_plain_names() -> None:
    assert [markdown(name) for name in ("ema_l2", "fsq-8", "a.b+c=1")] == ["ema_l2", "fsq-8", "a.b+c=1"]
    assert markdown("_x_") == r"\_x\_"


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_tables_on_the_console(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scores = {name: 1.0}
    show(
        Evaluation(scores=scores, num_images=1, undecodable=[name], stamps={name: {"set": name}}), title=name
    )
    reference.record(scores, {"images": name}, file=tmp_path / "fid.jsonl", title=name)
    said = capsys.readouterr().out
    said.encode("utf-8")
    assert all(is_one_line(line) for line in said.splitlines())
    assert json.loads((tmp_path / "fid.jsonl").read_text())["images"] == name  # as it was, in ASCII
    if name == NASTY:
        assert r"w[/q]<img src=x onerror=1>" in said


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_progress_bars(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    for bar in (progress_bar(), weights._Bar(name).progress):
        bar.add_task(name, total=1, note=name)
        bar.console.print(bar.get_renderable())
    said = terminal.getvalue()
    assert name != NASTY or "w[/q]<img" in said


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_the_log(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    open_log(tmp_path / "log.txt")
    try:
        logger = logging.getLogger("vq.test")
        logger.info("%s: %d images in %-14s (%s)", name, 3, Path(name), ValueError(name))
        logger.warning("two lines:\n  %s", name)
        logger.info(f"in the message: {name.splitlines()[0]}")
    finally:
        close_log()
    for said in (capsys.readouterr().err, (tmp_path / "log.txt").read_text(encoding="utf-8")):
        assert len(said.splitlines()) == 4
        assert all(is_one_line(line) for line in said.splitlines())
        said.encode("utf-8")


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_loggers(name: str, tmp_path: Path) -> None:
    picture = torch.zeros(3, 4, 4, dtype=torch.uint8)
    board, lines = TensorBoard(directory=tmp_path), MetricsFile(directory=tmp_path)
    sent: dict[str, float] = {}
    wandb = WandB.__new__(WandB)
    wandb.run = SimpleNamespace(log=lambda values, step: sent.update(values))
    for callback in (board, lines):
        callback.on_start(0, 2)
        callback.on_log(1, {f"loss/{name}": 1.0})
        callback.on_evaluation_end(1, {name: 1.0}, picture)
        callback.on_end(2)
    wandb.on_log(1, {f"loss/{name}": 1.0})
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert len(events.Tags()["scalars"]) == 2
    assert all(is_one_line(tag) for tag in (*events.Tags()["scalars"], *sent))
    rows = (tmp_path / "metrics.jsonl").read_bytes().decode("ascii").splitlines()
    assert [name in json.loads(rows[1]), f"loss/{name}" in json.loads(rows[0])] == [True, True]


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.title = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        if self.tags[-1:] == ["h1"]:
            self.title += data


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_the_page_of_an_atlas(name: str, tmp_path: Path) -> None:
    atlas = visualize_patches.Atlas(sections=[], patch_size=(2, 2), num_images=1, views=1)
    page = visualize_patches.write(atlas, tmp_path, title=name)
    parser = Tags()
    parser.feed(page.read_text(encoding="utf-8"))
    assert set(parser.tags) <= {"html", "head", "meta", "title", "style", "body", "h1", "p"}
    assert is_one_line(parser.title.strip())


def test_a_console_does_not_interpret_a_name_by_itself() -> None:
    """That the tests above can fail: markup in a name is an error where it is not text."""
    with pytest.raises(Exception, match="closing tag"):
        Console(file=io.StringIO()).print(NASTY)
