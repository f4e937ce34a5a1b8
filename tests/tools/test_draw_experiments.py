"""The picture of all experiments: one panel each, the same bytes each time, and one error for what is no table."""

import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from tools import draw_experiments
from vq.engine.comparison.plot import COUNTS, GREY, TIE
from vq.errors import UserError

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


def test_the_committed_tables_are_drawn_the_same_each_time(tmp_path: Path) -> None:
    first, second = (
        draw_experiments.main([str(EXPERIMENTS), "--out", str(tmp_path / name)])
        for name in ("a.svg", "b.svg")
    )
    assert first.read_bytes() == second.read_bytes()
    panels = [g for g in ET.parse(first).iter() if str(g.get("id", "")).startswith("axes_")]
    assert len(panels) == len(list(EXPERIMENTS.glob("*/table.csv")))


def write(folder: Path, lines: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "table.md").write_text("# Which is best?\n")
    (folder / "table.csv").write_text(f"name,rank,seeds,psnr_half,difference,difference_half,tie\n{lines}")


def test_a_difference_that_counts_a_tie_and_a_single_seed_have_their_colours(tmp_path: Path) -> None:
    write(tmp_path / "one", "good,1,3,0.1,1.5,0.5,False\nbase,2,3,0.1,,,\nsame,2,3,0.1,-0.1,0.5,True\n")
    found = draw_experiments.read(tmp_path / "one")
    assert (found.title, found.score) == ("Which is best?", "psnr")
    assert found.lines == [
        ("good", 1.5, 0.5, COUNTS),
        ("base", 0.0, 0.0, GREY),
        ("same", -0.1, 0.5, TIE),
    ]
    write(tmp_path / "two", "one_seed,1,1,,0.7,,\n")
    assert draw_experiments.read(tmp_path / "two").lines == [("one_seed", 0.7, 0.0, TIE)]


def test_what_is_no_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"expected folders with a table\.csv, found none; run vq compare first"
    ):
        draw_experiments.main([str(tmp_path), "--out", str(tmp_path / "x.svg")])
    write(tmp_path / "bad", "a,1,3,0.1,many,0.5,False\n")
    with pytest.raises(UserError, match="bad: expected the tables of vq compare, got could not convert"):
        draw_experiments.main([str(tmp_path), "--out", str(tmp_path / "x.svg")])
    write(tmp_path / "bad", "a,1,3,0.1,nan,0.5,False\n")
    with pytest.raises(UserError, match="a difference is not a number"):
        draw_experiments.main([str(tmp_path), "--out", str(tmp_path / "x.svg")])
    assert not (tmp_path / "x.svg").exists()
