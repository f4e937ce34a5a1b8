"""The page of `vq report`: what it shows of real runs, of damaged ones and of names with markup, and what it loads."""

import base64
import html
import io
import itertools
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from commands import TINY, accepted, refused
from PIL import Image

from vq import report
from vq.engine.reporting.pictures import error_map
from vq.engine.reporting.run_folder import Row
from vq.engine.reporting.times import times_of

NASTY = "w<b>[x]<img src=x onerror=alert(1)>&amp;\"'{{ 7 * 7 }}|$x^2$\u202e"
VOID = {"meta", "link", "img", "br"}


class Page(HTMLParser):
    """The elements of a page and their text; fails if an element is not closed, or in a wrong order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: dict[str, list[str]] = {}
        self.tables: list[list[list[str]]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(dict(attrs)) == len(attrs), (tag, attrs)
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
            self.text.setdefault(tag, []).append("")
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("th", "td"):
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        for tag in set(self.open):
            self.text[tag][-1] += data
        if {"th", "td"} & set(self.open):
            self.tables[-1][-1][-1] += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def table(self, caption: str) -> list[list[str]]:
        """The rows of the table whose caption begins like this."""
        return self.tables[next(i for i, text in enumerate(self.text["caption"]) if text.startswith(caption))]

    def lacks(self) -> str:
        return "\n".join(what for _, what in self.table("What the run folders lack"))


def check(page: Page) -> None:
    """What must hold for every report."""
    addresses = [a.get(name) or "" for _, a in page.elements for name in ("src", "href") if name in a]
    assert all(address.startswith(("data:", "#")) for address in addresses)
    assert "url(" not in page.text["style"][0]
    assert "@import" not in page.text["style"][0]
    assert not {"script", "iframe", "object", "embed", "form", "base"} & {tag for tag, _ in page.elements}
    assert not [name for _, a in page.elements for name in a if name.startswith("on")]
    assert page.all("html") == [{"lang": "en"}]
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(below - above <= 1 for above, below in itertools.pairwise(levels))
    assert all(image["alt"] for image in page.all("img"))
    assert all(cell["scope"] in ("col", "row") for cell in page.all("th"))
    assert len(page.all("caption")) == len(page.all("table"))
    assert all(region["aria-label"] for region in page.all("div") if region.get("role") == "region")
    names = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(names) == len(set(names))
    used = [a["href"] for a in page.all("a")] + [f"#{a['aria-labelledby']}" for a in page.all("section")]
    assert {name[1:] for name in used if name} <= set(names)


def page_of(*runs: object, out: Path | None = None) -> Page:
    written = report.main([*map(str, runs), *(["--out", str(out)] if out else [])])
    page = Page(written.read_text(encoding="utf-8"))
    check(page)
    return page


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with two runs: `a/run` was continued, scored and tokenized; `other` is its copy with other settings."""
    folder = tmp_path_factory.mktemp("report")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        accepted("train", "a/run", TINY, "--override", ".checkpointer.every:8", ".trainer.max_steps:8")
        accepted("train", "a/run", "--auto-resume", "--override", ".trainer.max_steps:12")
        accepted("val", "a/run")
        accepted("tokenize", "a/run")
        shutil.copytree("work_dirs/a/run", "work_dirs/other", ignore=shutil.ignore_patterns("checkpoints"))
        config = json.loads(Path("work_dirs/other/config.json").read_text())
        config["train_step"]["optimizer"]["lr"], config["trainer"]["max_steps"] = 0.002, 4
        Path("work_dirs/other/config.json").write_text(json.dumps(config))
        yield folder


@pytest.fixture
def here(trained: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(trained)
    return trained


def test_a_run_on_one_page(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = page_of("a/run")
    assert capsys.readouterr().out.startswith("wrote work_dirs/a/run/report.html (")
    assert page.text["h1"] == ["Report of a/run"]
    assert page.text["h2"] == [
        "Overview", "What was run", "Losses", "Scores", "Pictures of the validation set", "Codebook", "Speed",
        "Time line", "What is missing",
    ]  # fmt: skip
    overview = dict(page.table("The runs")[1:])
    assert (overview["state"], overview["steps"], overview["quantizer"]) == (
        "finished",
        "12 of 12",
        "VectorQuantizer",
    )
    assert float(overview["images per second"].replace(",", "")) > 0
    assert ["seed", "3407"] in page.table("Environment")
    rows = [json.loads(line) for line in Path("work_dirs/a/run/metrics.jsonl").read_text().splitlines()]
    last = next(row for row in rows[::-1] if row["split"] == "val")
    assert ["psnr", f"{last['psnr']:,.5g}"] in page.table("The last validation during training")
    alt = next(str(image["alt"]) for image in page.all("img") if "of loss/l1 by" in str(image["alt"]))
    assert f"a/run: {rows[0]['loss/l1']:.4g} at step 2, " in alt
    assert ["2", f"{rows[0]['loss/l1']:.4g}"] in page.table("Values of loss/l1")
    scored = {
        name: cells for name, *cells in page.table("How the scores of a/run, val/iter_12 were computed")
    }
    assert scored["score"] == ["value", "images", "weights", "with"]
    assert scored["psnr"][1:3] == ["13", "averaged"]
    assert [kind for _, kind, _ in page.table("Starts, resumes, stops")].count("resume") == 1
    titles = [text for text in page.text["figcaption"] if text.startswith("a/run, step")]
    assert len(titles) == 4  # steps 4, 8 and 12, and the error of the last
    assert "step 12, error of the reconstructions" in titles[-1]
    picture = next(
        image for image in page.all("img") if str(image["alt"]).startswith("a/run, step 4: rows of")
    )
    content = base64.b64decode(str(picture["src"]).partition(",")[2])
    assert content == Path("work_dirs/a/run/images/iter_4.png").read_bytes()
    assert any(text.startswith("13 images, 832 indices; ") for text in page.text["p"])
    assert len(page.table("Most and least used codes")[1]) == 7
    assert len(page.table("Where the ")) == 7


def test_runs_are_compared(here: Path) -> None:
    page = page_of("a/run", "work_dirs/other")
    assert page.text["h1"] == ["Report of 2 runs"]
    assert Path("work_dirs/report.html").is_file()
    differences = page.table("Differences between the configs")
    assert differences[0] == ["key", "a/run", "other"]
    assert ["train_step.optimizer.lr", "0.001", "0.002"] in differences
    assert ["trainer.max_steps", "12", "4"] in differences
    alt = next(str(image["alt"]) for image in page.all("img") if "of loss/total by" in str(image["alt"]))
    assert "a/run: " in alt
    assert "other: " in alt


def test_equal_configs(small: Path) -> None:
    other = shutil.copytree(small, small.with_name("other"))
    page = page_of(small, other, out=small / "both.html")
    assert "The configs of the runs are equal." in page.text["p"]


def test_names_from_outside_are_text(small: Path) -> None:
    """In the name of the folder, of a class, of a scalar and a score, in the command, in the config and in the log."""
    run = small.rename(small.with_name(NASTY.replace("/", "")))
    for name in ("images/iter_4.png", f"generated/{run.name}_grid.png"):
        (run / name).parent.mkdir()
        Image.new("RGB", (8, 8)).save(run / name)
    tokenizer = {"type": f"vq.{NASTY}", "quantizer": {"type": f"vq.{NASTY}"}}
    (run / "config.json").write_text(json.dumps({"tokenizer": tokenizer, NASTY: NASTY}))
    (run / "config_resolved.py").write_text(f"{NASTY}\nsecond line\x1b[0m\n")
    started = {"command": [NASTY], NASTY: NASTY, "changed_files": f"{NASTY}\n</pre>"}
    (run / "environment.json").write_text(json.dumps(started))
    with (run / "metrics.jsonl").open("a") as file:
        for step, split in ((1, "train"), (2, "train"), (1, "val"), (2, "val")):
            file.write(
                json.dumps({"step": step, "split": split, f"loss/{NASTY}": 1.0 + step, NASTY: 2.0}) + "\n"
            )
    with (run / "log.txt").open("a") as file:
        file.write(f"2026-01-01 00:00:00 {NASTY}\n")
    (run / "run.ended").write_text(NASTY)
    (run / "val" / "iter_4").mkdir(parents=True)
    scored = {"scores": {NASTY: 1.0}, "stamp": {NASTY: {NASTY: NASTY}}}
    (run / "val" / "iter_4" / "metrics.json").write_text(json.dumps(scored))
    page = page_of(run)
    assert not page.all("b")
    shown = NASTY.replace("\u202e", "\\u202e").replace("/", "")
    for tag in ("h1", "title", "pre", "td", "th", "figcaption", "caption", "h3"):
        assert any(shown in text for text in page.text[tag]), tag
    assert any(shown in str(image["alt"]) for image in page.all("img"))
    assert "7 * 7" in page.text["h1"][0]
    assert dict(page.table("The runs")[1:])["state"] == f"ended early: {shown}"
    assert any("second line\\x1b[0m\n" in text for text in page.text["pre"])


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A folder with little in it, which is read in no time."""
    run = tmp_path / "small"
    run.mkdir()
    (run / "log.txt").write_text(
        "03:12:06 config: a.py\n03:12:57 step 50/500  eta 0:06:16  total 0.3578\nthe second line of a message\n"
        "04:00:00 config: a.py\n04:00:01 continuing from iter_50: 50 steps are done\n"
        "04:10:00 stopping at step 80: SIGTERM asked for it\n04:20:00 config: a.py\n"
    )
    row = {"step": 50, "split": "train", "loss/total": 0.5, "time/step": 2, "time/data": 1}
    (run / "metrics.jsonl").write_text(json.dumps(row) + "\n")
    return run


def test_an_old_run_of_which_little_is_left(small: Path) -> None:
    """Without dates and times, as version 0.1 wrote them; one training was killed, and the next one was stopped."""
    page = page_of(small)
    events = page.table("Starts, resumes, stops")[1:]
    assert [kind for _, kind, _ in events] == ["start", "fault", "start", "resume", "stop", "start"]
    assert (
        events[1][2]
        == "the training before this line ended without a message: it was killed, or ended by an error"
    )
    assert ["waiting for data", "50.0%"] in [
        cells[:2] for cells in page.table("Where the time of the logged steps")
    ]
    said = page.lacks()
    for name in ("config.json is missing", "environment.json is missing", "no time/elapsed", "no validation during",
                 "no picture of a validation", "no checkpoint was scored by `vq val`", "no token store"):  # fmt: skip
        assert name in said
    assert dict(page.table("The runs")[1:])["state"] == "not finished"


def test_a_folder_with_a_log_alone(small: Path) -> None:
    (small / "metrics.jsonl").unlink()
    (small / "log.txt").write_text("")
    assert "metrics.jsonl is missing" in page_of(small).lacks()


DAMAGE = [
    ("metrics.jsonl", b'{"step": 1, "split": "tr', "metrics.jsonl: skipped 1 of 1 lines, which are damaged"),
    ("metrics.jsonl", b'[1]\n{"step": true, "split": "val"}\n{"split": "val"}\n\xff\n', "skipped 4 of 4"),
    (
        "metrics.jsonl",
        b'{"step": -1, "split": "val"}\n{"step": 1.5, "split": "val"}\n{"step": 1}\n',
        "3 of 3",
    ),
    ("metrics.jsonl", b"[" * 100_000, "skipped 1 of 1"),
    ("config.json", b"[1, 2]", "config.json: expected an object, got list"),
    ("config.json", b"{", "config.json cannot be read"),
    (
        "config.json",
        b'{"a": ' * 300 + b"0" + b"}" * 300,
        "config.json: expected an object, got one that is nested too",
    ),
    ("environment.json", b"\xff", "environment.json cannot be read"),
    ("images/iter_12.png", b"\x89PNG\r\n", "images/iter_12.png cannot be shown"),
    ("generated/x_grid.png", b"", "generated/x_grid.png cannot be shown"),
    ("val/iter_12/metrics.json", b"{}", "val/iter_12/metrics.json holds no scores"),
    ("tokens/val/manifest.json", b"{}", "tokens/val cannot be counted"),
]


@pytest.mark.parametrize(("name", "content", "said"), DAMAGE, ids=range(len(DAMAGE)))
def test_a_damaged_file_is_named_and_the_rest_is_shown(
    small: Path, name: str, content: bytes, said: str
) -> None:
    (small / name).parent.mkdir(parents=True, exist_ok=True)
    (small / name).write_bytes(content)
    page = page_of(small)
    assert said in page.lacks()
    assert "Time line" in page.text["h2"]


def test_strange_values_are_left_out(small: Path) -> None:
    config = {"trainer": [], "train_data": {"batch_size": "x"}, "tokenizer": 3, "generator": None}
    (small / "config.json").write_text(json.dumps(config))
    values = [1, float("nan"), 10**400, True, None, 1e-320, 4]
    rows = [{"step": step, "split": "train", "loss/a": value} for step, value in enumerate(values)]
    rows += [
        {"step": 9, "split": "?", "x": 1.0},
        {"step": 9, "split": "val", "time/elapsed": "x", "time/unix": 1e300},
    ]
    (small / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert "loss/a2 values are not finite and are left out" in page_of(small).text["figcaption"]


def test_earlier_command_lines_are_shown_in_their_order(small: Path) -> None:
    for name, word in (("environment.json.2", "b"), ("environment.json", "c"), ("environment.json.1", "a b")):
        (small / name).write_text(json.dumps({"command": ["vq", "train", word]}))
    assert [command for _, command in page_of(small).table("Command lines")[1:]] == [
        "vq train 'a b'",
        "vq train b",
        "vq train c",
    ]


def test_a_long_run_has_a_small_page(tmp_path: Path) -> None:
    run = tmp_path / "long"
    run.mkdir()
    rows = (
        {"step": i, "split": "train", "loss/total": 1 / i, "other": float(i % 7)} for i in range(1, 20_001)
    )
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    page = page_of(run)
    assert any("each point is the mean of 50 values" in text for text in page.text["figcaption"])
    assert (run / "report.html").stat().st_size < 300_000


def test_large_pictures_are_reduced_and_it_says_so(small: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (300, 1800, 3), dtype=np.uint8)
    (small / "images").mkdir()
    Image.fromarray(noise).save(small / "images" / "iter_12.png")
    said = next(text for text in page_of(small).text["figcaption"] if "step 12" in text)
    assert said.endswith("step 12a JPEG of 1600 x 267 pixels instead of 1800 x 300")


def test_sheets_of_an_atlas_are_shown_enlarged(small: Path) -> None:
    for number in range(3):
        file = small / "tokens" / "val" / "patches" / f"index_0_sheet_000{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 30)).save(file)
    page = page_of(small)
    assert page.text["strong"][-2:] == ["tokens/val, sheet 1 of 3", "tokens/val, sheet 3 of 3"]
    assert [image["width"] for image in page.all("img") if "Patches by code" in str(image["alt"])] == [
        "60",
        "60",
    ]


def test_the_map_of_errors(tmp_path: Path) -> None:
    """Two images of 10 x 10 pixels above their reconstructions, of which one differs by 48 in half of its pixels."""
    picture = np.full((22, 22, 3), 128, dtype=np.uint8)
    picture[:10, :10] = picture[:10, 12:] = picture[12:, :10] = picture[12:, 12:] = 20
    picture[12:17, 12:] = 68
    Image.fromarray(picture).save(tmp_path / "a.png")
    drawn = error_map(tmp_path / "a.png", caption="error")
    assert drawn is not None
    assert drawn.remark.endswith(f"the mean is {48 * 50 / 220:.1f}")
    with Image.open(io.BytesIO(base64.b64decode(drawn.source.partition(",")[2]))) as image:
        assert (image.size, image.getpixel((0, 0)), image.getpixel((13, 2))) == (
            (22, 10),
            (0, 0, 0),
            (255, 127, 0),
        )
    Image.fromarray(picture[:, :, :].repeat(2, axis=0)[:41]).save(tmp_path / "b.png")
    assert error_map(tmp_path / "b.png", caption="error") is None


def test_a_report_is_replaced_and_nothing_else(small: Path) -> None:
    out = small / "x.html"
    out.write_text("mine")
    assert "x.html: is not a report of vq and is not overwritten" in refused("report", small, "--out", out)
    assert out.read_text() == "mine"
    out.unlink()
    first = page_of(small, out=out)
    (small / "metrics.jsonl").unlink()
    assert page_of(small, out=out).text["h2"] != first.text["h2"]
    assert not list(small.glob(".*.partial"))


def test_refused(here: Path) -> None:
    assert "RUN a/rnu: there is no such run in work_dirs; did you mean 'a/run'" in refused("report", "a/rnu")
    assert "expected a run folder, got one without any of config.json" in refused("report", "work_dirs/a")
    assert "a run is given twice" in refused("report", "other", "work_dirs/other")
    assert "expected a file, got a folder" in refused("report", "other", "--out", here)
    (here / "x.txt").touch()
    below = here / "x.txt" / "r.html"
    assert "x.txt is a file, and a folder is needed" in refused("report", "other", "--out", below)


def row(step: int, split: str, elapsed: float, clock: float) -> Row:
    values = {"time/elapsed": float(elapsed), "time/unix": float(clock), "time/step": 0.2, "time/data": 0.05}
    return Row(step=step, split=split, values=values)


def test_where_the_time_went() -> None:
    """Two trainings: 30 s, of which a validation took 5 s, then 12 s after a pause of a day."""
    rows = [
        row(10, "train", 10, 1010), row(20, "train", 15, 1015), row(20, "val", 20, 1020), row(30, "train", 30, 1030),
        row(40, "train", 8, 90_008), row(50, "train", 12, 90_012),
    ]  # fmt: skip
    times = times_of(rows)
    assert times is not None
    assert (times.total, times.validation, times.data) == (
        42,
        5,
        pytest.approx(0.05 / ((0.5 + 1.0 + 0.4) / 3)),
    )
    assert times.pace == [(20, 0.5), (30, 1.0), (50, 0.4)]
    assert times.starts == [1000, 90_000]
    assert times_of([Row(step=1, split="train", values={"loss/total": 1.0})]) is None


BROWSERS = filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome")))
CHROMIUM = next(BROWSERS, None)


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium")
def test_a_browser_shows_the_page_without_a_complaint(here: Path, tmp_path: Path) -> None:
    """At the width of a phone nothing is wider than the screen, every picture is decoded, and nothing is refused."""
    report.main(["a/run", "--out", str(tmp_path / "report.html")])
    page = html.escape((tmp_path / "report.html").read_text())
    measure = """<script>onload = () => { const page = frames[0].document, images = [...page.images];
      console.log("measured", page.documentElement.scrollWidth, images.length,
        images.filter(image => image.naturalWidth).length) }</script>"""
    frame = tmp_path / "frame.html"
    frame.write_text(
        f'<!DOCTYPE html><link rel="icon" href="data:,">'
        f'<iframe width="390" height="800" style="border: 0" srcdoc="{page}"></iframe>{measure}'
    )
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--dump-dom"]
    done = subprocess.run(
        [str(CHROMIUM), *options, f"--user-data-dir={tmp_path / 'profile'}", frame.as_uri()],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    said = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert len(said) == 1, said
    width, images, decoded = re.findall(r"measured (\d+) (\d+) (\d+)", said[0])[0]
    assert int(width) <= 390
    assert images == decoded != "0"
