"""The documentation site: it builds without a warning, and no page loads anything from another server."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

pytest.importorskip("mkdocs", reason="the site's tools are not installed: make env")
griffe = pytest.importorskip("griffe")
ROOT = Path(__file__).parents[1]


def hook(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"site_{name}", ROOT / "docs" / "site" / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def checks() -> ModuleType:
    return hook("checks")


@pytest.fixture
def small_site(tmp_path: Path) -> Path:
    (tmp_path / "index.html").write_text('<a id="top"></a><a href="page.html#there">x</a><img src="a.png">')
    (tmp_path / "page.html").write_text('<h2 id="there">y</h2><a href="https://example.org/">z</a>')
    (tmp_path / "a.png").touch()
    (tmp_path / "style.css").write_text("p { background: url(a.png) }")
    return tmp_path


def test_a_sound_site_passes(checks: ModuleType, small_site: Path) -> None:
    assert checks.external_loads(small_site) == []
    assert checks.broken_links(small_site) == []


@pytest.mark.parametrize(
    "loading",
    [
        '<script src="https://example.org/x.js"></script>',
        '<img srcset="a.png 1x, //example.org/b.png 2x">',
        '<link rel="stylesheet" href="https://example.org/x.css">',
        '<link rel="preconnect" href="https://example.org">',
        '<style>@import "https://example.org/x.css"</style>',
        '<p style="background: url(https://example.org/x.png)">',
    ],
)
def test_what_a_page_loads_from_elsewhere_is_found(
    checks: ModuleType, small_site: Path, loading: str
) -> None:
    (small_site / "page.html").write_text(f'<h2 id="there">y</h2>{loading}')
    [found] = checks.external_loads(small_site)
    assert found.startswith("page.html: ")
    assert "example.org" in found


def test_what_a_style_sheet_loads_from_elsewhere_is_found(checks: ModuleType, small_site: Path) -> None:
    (small_site / "style.css").write_text("@font-face { src: url('https://example.org/f.woff2') }")
    assert checks.external_loads(small_site) == ["style.css: https://example.org/f.woff2"]


@pytest.mark.parametrize("link", ["gone.html", "page.html#gone", "#gone", "folder/"])
def test_a_broken_link_is_found(checks: ModuleType, small_site: Path, link: str) -> None:
    (small_site / "index.html").write_text(f'<a href="{link}">x</a>')
    assert checks.broken_links(small_site) == [f"index.html: {link}"]


def test_lists_and_tables_are_set_off_from_the_paragraph_above() -> None:
    separated = hook("markdown_style").separated
    assert separated("a:\n* b\n  c\n* d") == "a:\n\n* b\n  c\n* d"
    assert separated("a\n| b |\n|---|") == "a\n\n| b |\n|---|"
    assert separated("```\na:\n* b\n```") == "```\na:\n* b\n```"
    assert separated("## a\n* b") == "## a\n* b"


@pytest.mark.parametrize("undocumented", ["function", "method", "nothing"])
def test_a_public_name_without_a_docstring_is_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, undocumented: str
) -> None:
    docstrings = {name: "pass" if name == undocumented else '"""Text."""' for name in ("function", "method")}
    (tmp_path / "toy.py").write_text(
        "__all__ = ['Class', 'function']\n"
        f"def function():\n    {docstrings['function']}\n"
        'class Class:\n    """Text."""\n'
        f"    def method(self):\n        {docstrings['method']}\n"
        "    def _private(self):\n        pass\n"
    )
    members = hook("reference").exports(griffe.load("toy", search_paths=[str(tmp_path)]))
    assert [member.name for member in members] == ["function", "Class"]
    assert undocumented == "nothing" or undocumented in caplog.text
    assert len(caplog.records) == (undocumented != "nothing")


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # of the site's tools, not of this project
def test_the_site_builds_without_a_warning(
    checks: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    monkeypatch.chdir(ROOT)
    modules = set(sys.modules)
    try:
        build(load_config("mkdocs.yml", strict=True, site_dir=str(tmp_path)))
    finally:
        for name in {"reference", "markdown_style", "docstrings"} - modules:
            sys.modules.pop(name, None)
    assert "vq.quantizers.VectorQuantizer" in (tmp_path / "reference/quantizers/index.html").read_text()
    assert checks.external_loads(tmp_path) == []
    assert checks.broken_links(tmp_path) == []
