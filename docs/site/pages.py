"""MkDocs hooks: the generated pages, links that leave docs/, links to the reference, and formulas as MathML.

The home page is README.md and the reference is made from each package's `__all__`, so that nothing is written twice.
A link to a file or folder outside docs/, such as a config page, works on a repository page; on the site it leads to
a page that shows the file or lists the folder.
"""

import html
import posixpath
import re
from pathlib import Path

import latex2mathml.converter
from markdown_style import separated
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from reference import Reference

ROOT = Path(__file__).parents[2]
ROOT_PAGES = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
LANGUAGES = {".py": "python", ".md": "markdown", ".yml": "yaml", ".sh": "bash", ".toml": "toml"}
LINK = re.compile(r"""(?P<before>\]\(|(?:src|href)=")(?P<target>[^)"#\s]+)""")
NAME = re.compile(r"<code>(?P<name>[\w.]+)</code>(?!</a>)")
FORMULA = re.compile(r'<(span|div) class="arithmatex">(?:\\\(|\\\[)(.*?)(?:\\\)|\\\])</\1>', re.S)
reference: Reference


def on_config(config: MkDocsConfig) -> None:
    """Reads the public names and appends their pages to the navigation."""
    global reference  # noqa: PLW0603
    reference = Reference()
    config.nav.append({"API reference": reference.nav})


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages that are not under docs/."""
    for source, target in ROOT_PAGES.items():
        header = "---\nhide: [navigation]\n---\n" if source == "README.md" else ""
        files.append(File.generated(config, target, content=header + (ROOT / source).read_text()))
    for target, content in reference.pages.items():
        files.append(File.generated(config, target, content=content))
    for file in [f for f in files.documentation_pages() if not f.src_uri.startswith("reference/")]:
        for link in LINK.finditer(file.content_string):
            source = repository_path(file.src_uri, link["target"])
            target = f"source/{source}.md"
            if is_outside(source) and target not in files.src_uris:
                files.append(File.generated(config, target, content=shown(source)))
    return files


def on_page_markdown(markdown: str, page: Page, files: Files, **_: object) -> str:
    """Turns links that are right in the repository into links that are right on the site."""
    here = page.file.src_uri
    if here.startswith(("reference/", "source/")):
        return markdown

    def moved(link: re.Match[str]) -> str:
        source = repository_path(here, link["target"])
        inside = ROOT_PAGES.get(source) or source.removeprefix("docs/")
        target = f"source/{source}.md" if is_outside(source) else inside
        if target not in files.src_uris:
            return link[0]  # an address, or a link that MkDocs reports
        is_html = "=" in link["before"]
        relative = posixpath.relpath(target, posixpath.dirname(here) or ".")
        return link["before"] + (re.sub(r"\.md$", ".html", relative) if is_html else relative)

    return separated(LINK.sub(moved, markdown))


def on_page_content(content: str, **_: object) -> str:
    """Links names to the reference, and writes formulas as MathML, which needs no script."""
    content = FORMULA.sub(lambda m: latex2mathml.converter.convert(html.unescape(m[2])), content)
    return NAME.sub(linked, content)


def linked(code: re.Match[str]) -> str:
    """A public name in running text, as a link to its documentation."""
    path = reference.identifiers.get(code["name"])
    return f'<autoref identifier="{path}" optional>{code[0]}</autoref>' if path else code[0]


def repository_path(page: str, target: str) -> str:
    """What a relative link on a page of the site means in the repository."""
    original = next((source for source, shown in ROOT_PAGES.items() if shown == page), f"docs/{page}")
    return posixpath.normpath(posixpath.join(posixpath.dirname(original), target))


def is_outside(source: str) -> bool:
    """Whether a path is in the repository and has no page of its own on the site."""
    return (
        not source.startswith(("docs/", "..", "/")) and source not in ROOT_PAGES and (ROOT / source).exists()
    )


def shown(source: str) -> str:
    """The Markdown of a page that shows a file, or lists a folder."""
    path, language = ROOT / source, LANGUAGES.get(Path(source).suffix, "text")
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file() and "__pycache__" not in file.parts)
        text = "".join(f"{file.relative_to(path)}\n" for file in files)
    else:
        text = path.read_text()
    return f"---\nsearch: {{exclude: true}}\n---\n# {source}\n\n````` {language}\n{text}`````\n"
