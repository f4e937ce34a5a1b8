"""The GPU suite on a CPU: that its sections run at tiny sizes, resume, and do not stop each other."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.gpu import installation, run
from benchmarks.gpu.report import markdown
from benchmarks.gpu.timing import Rows, has_failed

ROOT = Path(__file__).parents[1]
Made = Callable[..., Rows]


@pytest.fixture
def rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Made:
    """Makes the rows of a section, as its process does."""

    def make(*words: str) -> Rows:
        given = ["section", "--out", str(tmp_path / "section.json"), "--device", "cpu", *words]
        monkeypatch.setattr(sys, "argv", given)
        return Rows("A section.")

    return make


def nothing() -> None:
    """What is timed."""


class TestRows:
    def test_a_row_is_measured_once(self, rows: Made) -> None:
        built = []
        for _ in range(2):
            rows("--small").measure("row", {"vq": lambda: built.append(1) or nothing})
        assert built == [1]

    def test_a_side_that_fails_leaves_the_others(self, rows: Made) -> None:
        def broken() -> Any:
            raise ValueError("first line\nsecond line")

        def absent() -> Any:
            raise ModuleNotFoundError("No module named 'taming'", name="taming.modules")

        made = rows("--small")
        made.measure("row", {"vq": lambda: nothing, "a": broken, "b": absent}, bars={"a": 2.0}, most_mib=5)
        row = json.loads(made.out.read_text())["rows"]["row"]
        assert row["vq"]["ms"] >= 0
        assert row["a"] == {"error": "ValueError: first line"}
        assert row["b"] == {"error": "not installed"}
        assert row["bars"] == {"2x a": "not measured", "under 5 MiB": "not measured"}

    def test_bars_compare_medians(self, rows: Made) -> None:
        made = rows("--small")
        sums = {"vq": lambda: nothing, "slow": lambda: lambda: sum(range(10**5))}
        made.measure("row", sums, bars={"slow": 1.5}, derive=lambda ms: {"per second": 1e3 / ms})
        assert made.found["row"]["bars"]["1.5x slow"].startswith("met: ")
        assert made.found["row"]["facts"]["per second"] == pytest.approx(1e3 / made.found["row"]["vq"]["ms"])

    def test_retry_measures_rows_with_errors_again(self, rows: Made) -> None:
        made = rows("--small")
        made.measure("good", {"vq": lambda: nothing})
        made.measure("bad", {"vq": lambda: 1 / 0})
        made.keep("test", {"outcome": "failed", "seconds": 0.0})
        assert set(rows("--small").found) == {"good", "bad", "test"}
        assert set(rows("--small", "--retry").found) == {"good"}

    def test_rows_of_different_sizes_are_not_mixed(self, rows: Made) -> None:
        rows("--small").keep("row", {"facts": {}, "bars": {}})
        with pytest.raises(SystemExit, match=r"expected rows with small False, got True; give another --out"):
            rows()

    def test_a_device_that_is_not_there_ends_the_section(self, rows: Made) -> None:
        with pytest.raises(RuntimeError):
            rows("--device", "hip:99")

    def test_what_has_failed(self) -> None:
        assert has_failed({"outcome": "not finished", "seconds": 0.0})
        assert not has_failed({"outcome": "skipped", "seconds": 0.0})


class TestTheCommand:
    def call(self, monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
        monkeypatch.setattr(sys, "argv", ["run", *map(str, words)])
        return run.main()

    def test_each_section_is_a_module(self) -> None:
        folder = Path(run.__file__).parent
        assert {name for name in run.SECTIONS if not (folder / f"{name}.py").is_file()} == set()

    def test_the_core_takes_less_than_nine_minutes_as_does_each_other_section(self) -> None:
        assert sum(run.SECTIONS[name].seconds for name in run.CORE) < 540
        assert max(section.seconds for section in run.SECTIONS.values()) < 540
        assert run.parser().parse_args([]).minutes < 9

    def test_an_unknown_section(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with pytest.raises(SystemExit):
            self.call(monkeypatch, "nearst")
        assert "no section 'nearst'; there are nearest, entropy" in capsys.readouterr().err

    def test_sections_that_are_cut_are_in_the_report(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        words = ["--out", tmp_path, "--device", "cpu", "--small", "--seconds", 0.05]
        assert self.call(monkeypatch, "nearest", "loop", *words) == 1
        assert self.call(monkeypatch, "entropy", *words, "--minutes", 0) == 1
        ended = json.loads((tmp_path / "report.json").read_text())["ended"]
        assert list(ended) == ["nearest", "loop", "entropy"]
        assert ended["loop"] == "cut after 0 s; run the command again to go on"
        assert ended["entropy"] == "not started: the time is over; run the command again to go on"
        assert "## loop: cut after 0 s" in (tmp_path / "report.md").read_text()

    def test_the_wheels_that_another_machine_needs(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        everything = (*installation.NEEDED, *installation.FOR_TESTS, *installation.PEERS)
        listing = tmp_path / "list"
        left_out = {"mmengine", "vector-quantize-pytorch"}
        there = [f"{p.name.replace('-', '_')}==1.0" for p in everything if p.name not in left_out]
        listing.write_text("\n".join(there))
        assert self.call(monkeypatch, "--needs", listing) == 0
        said = capsys.readouterr().out
        assert "together about 0.6 MiB" in said
        assert (
            said.splitlines()[-1] == "pip download --no-deps --dest wheels mmengine vector-quantize-pytorch"
        )


def test_the_table_shows_sides_bars_facts_and_outcomes() -> None:
    side = {"ms": 1.5, "from": 1.0, "to": 2.0, "peak_mib": 3.0}
    row = {
        "vq": side,
        "other": {"error": "not installed"},
        "bars": {"2x other": "not measured"},
        "facts": {"N": 8},
    }
    test = {"outcome": "failed", "seconds": 2.0, "reason": "a | b"}
    about = {"hardware": "card", "torch": "2.11", "date": "2026-11-27", "small": False}
    report = {
        "date": "2026-11-27", "hardware": "card", "command": "bash", "packages": {"torch": "2.11"},
        "ended": {"nearest": "complete", "tests": "ended with exit code 1", "loop": "ended with exit code 1"},
        "sections": {"nearest": {"about": about, "rows": {"row": row}}, "tests": {"about": about, "rows": {"t": test}}},
    }  # fmt: skip
    text = markdown(report)
    assert "| row | vq | 1.500 | 1.000 to 2.000 | 3.0 | 2x other not measured |" in text
    assert "| row | other | not installed |  |  |  |" in text
    assert "| row |  |  |  |  | N 8 |" in text
    assert "| t | failed | 2.0 | a / b |" in text
    assert "## loop: ended with exit code 1\n\nno rows" in text


@pytest.mark.slow
@pytest.mark.timeout(1200)  # eighteen processes that import torch
def test_every_section_runs_at_tiny_sizes_and_once(tmp_path: Path) -> None:
    """The file of the section `loop` cannot be read, which must not stop the sections after it."""
    (tmp_path / "loop.json").write_text("{")
    words = ["bash", "benchmarks/gpu.sh", "all", "--out", str(tmp_path), "--device", "cpu", "--small"]
    environment = {"PATH": "/usr/bin:/bin", "PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}

    def call(expect: int) -> dict[str, Any]:
        done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == expect, done.stderr[-3000:]
        return json.loads((tmp_path / "report.json").read_text())

    report = call(expect=1)
    assert report["ended"] == dict.fromkeys(run.SECTIONS, "complete") | {"loop": "ended with exit code 1"}
    assert list(report["sections"]) == [name for name in run.SECTIONS if name != "loop"]
    text = (tmp_path / "report.md").read_text()
    for section in report["sections"].values():
        assert section["rows"]
        assert all(f"| {title} |" in text for title in section["rows"])

    files = {name: (tmp_path / f"{name}.json").read_bytes() for name in report["sections"]}
    (tmp_path / "loop.json").unlink()
    assert "loop" in call(expect=0)["sections"]
    assert {name: (tmp_path / f"{name}.json").read_bytes() for name in files} == files
