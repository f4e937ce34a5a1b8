"""MkDocs hook: each link of the built site leads somewhere, and no page loads anything from another server."""

import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.plugins import get_plugin_logger

log = get_plugin_logger("checks")
STYLE_ADDRESS = re.compile(r"""(?:url\(|@import)\s*['"]?((?:https?:)?//[^'")\s]+)""")
# <a href> is followed by a reader, and <link rel="canonical"> and its kin by nobody; all else loads by itself.
LOADING_LINKS = {
    "stylesheet",
    "icon",
    "preload",
    "prefetch",
    "preconnect",
    "dns-prefetch",
    "modulepreload",
    "manifest",
}


class PageParser(HTMLParser):
    """Collects what a page loads, where it links to, and its anchors."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = STYLE_ADDRESS.findall(text)
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Reads one tag."""
        values = {name: value or "" for name, value in attrs}
        self.anchors |= {values[key] for key in ("id", "name") if key in values}
        loads = [values[key] for key in ("src", "poster", "data") if key in values]
        loads += [part.split()[0] for part in values.get("srcset", "").split(",") if part.strip()]
        if tag == "link" and LOADING_LINKS & set(values.get("rel", "").split()):
            loads.append(values.get("href", ""))
        if tag in ("use", "image"):
            loads += [values[key] for key in ("href", "xlink:href") if key in values]
        self.loads += loads
        self.links += loads
        if tag == "a" and "href" in values:
            self.links.append(values["href"])


def external_loads(site: Path) -> list[str]:
    """What the pages and style sheets of a built site load from elsewhere, as "page: address"."""
    found = []
    for page in sorted(site.rglob("*.html")):
        loads = PageParser(page.read_text()).loads
        found += [f"{page.relative_to(site)}: {each}" for each in loads if is_elsewhere(each)]
    for style in sorted(site.rglob("*.css")):
        found += [f"{style.relative_to(site)}: {each}" for each in STYLE_ADDRESS.findall(style.read_text())]
    return found


def broken_links(site: Path) -> list[str]:
    """The links inside a built site without a target file or anchor, as "page: link"."""
    pages = {page: PageParser(page.read_text()) for page in sorted(site.rglob("*.html"))}
    found = []
    for page, parsed in pages.items():
        for link in sorted(set(parsed.links)):
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = page if not parts.path else _target(site, page, unquote(parts.path))
            has_anchor = (
                not parts.fragment or target not in pages or unquote(parts.fragment) in pages[target].anchors
            )
            if not target.exists() or not has_anchor:
                found.append(f"{page.relative_to(site)}: {link}")
    return found


def is_elsewhere(address: str) -> bool:
    """Whether an address names a server."""
    parts = urlsplit(address)
    return bool(parts.netloc) and parts.scheme in ("", "http", "https")


def _target(site: Path, page: Path, path: str) -> Path:
    target = site / path.lstrip("/") if path.startswith("/") else (page.parent / path).resolve()
    return target / "index.html" if target.is_dir() else target


def on_post_build(config: MkDocsConfig) -> None:
    """Reports what is wrong with the built site; with --strict each report fails the build."""
    site = Path(config.site_dir).resolve()
    for each in external_loads(site):
        log.warning("loaded from another server: %s", each)
    for each in broken_links(site):
        log.warning("broken link: %s", each)
