"""The pages of the API reference: one for each public package, and one for each sub-package with public names."""

from pathlib import Path
from typing import Any

import griffe
from mkdocs.plugins import get_plugin_logger

ROOT = Path(__file__).parents[2]
# In the order in which a user meets them.
PACKAGES = [
    *("quantizers", "tokenizers", "networks", "layers", "losses", "metrics"),
    *("data", "generators", "engine", "interop", "ops"),
]
log = get_plugin_logger("reference")
Member = griffe.Object | griffe.Alias


class Reference:
    """The public names of `vq`, and the page that documents each.

    Attributes:
        pages: The Markdown of each page, by its path below docs/.
        nav: The entries of the navigation.
        identifiers: The full name for each way to write one; a short name that two packages have is left out.
    """

    def __init__(self) -> None:
        root = griffe.load("vq", search_paths=[str(ROOT)], resolve_aliases=True)
        functions = exports(root)
        self.pages = {"reference/vq.md": page(root, functions)}
        self.nav: list[Any] = [{"vq": "reference/vq.md"}]
        members = list(functions)
        for name in PACKAGES:
            members += self._add(root[name])
        names = [member.name for member in members]
        self.identifiers = {m.name: m.path for m in members if names.count(m.name) == 1}
        self.identifiers |= {m.path: m.path for m in members} | {
            f"vq.{name}": f"vq.{name}" for name in PACKAGES
        }

    def _add(self, package: griffe.Module) -> list[Member]:
        """Adds the pages of one package; returns its public names."""
        members = exports(package)
        groups: dict[str, list[Member]] = {"": []}
        for member in members:
            groups.setdefault(group_of(member, package), []).append(member)
        entries: list[Any] = [f"reference/{package.name}/index.md"]
        for group in sorted(groups.keys() - {""}):
            entries.append({group: f"reference/{package.name}/{group}.md"})
            self.pages[f"reference/{package.name}/{group}.md"] = page(package[group], groups[group])
        self.pages[entries[0]] = page(package, groups[""], contents(package, groups))
        self.nav.append({package.path: entries})
        return members


def exports(package: griffe.Module) -> list[Member]:
    """The names in `__all__`; for a package without it, the public functions and classes of its modules.

    They come module by module, in the order of the source, so that a base class precedes its subclasses.
    """
    if package.exports:
        members: list[Member] = [package[str(name)] for name in package.exports]
    else:
        members = [member for module in modules(package) for member in module.members.values()]
        members = [m for m in members if not m.is_alias and (m.is_function or m.is_class)]
    members = [member for member in members if not member.name.startswith("_")]
    for member in members:
        check_documented(member)
    return sorted(members, key=lambda member: (member.canonical_path.rpartition(".")[0], member.lineno or 0))


def modules(package: griffe.Module) -> list[griffe.Module]:
    """The modules of a package, at any depth."""
    inner = [module for name, module in sorted(package.modules.items()) if not name.startswith("_")]
    return [each for module in inner for each in (module, *modules(module))]


def group_of(member: Member, package: griffe.Module) -> str:
    """The sub-package that defines a public name, or "" for the package itself.

    A package that exports nothing, whose functions are imported from its modules, has a group for each module.
    """
    first = member.canonical_path.removeprefix(f"{package.path}.").split(".")[0]
    is_group = first in package.modules and (package.modules[first].is_init_module or not package.exports)
    return first if is_group else ""


def check_documented(member: Member) -> None:
    """Warns, which fails a strict build, about a public name or method without a docstring."""
    methods = [m for m in member.members.values() if m.is_function] if member.is_class else []
    for each in (member, *methods):
        if not each.has_docstring and not each.name.startswith("_"):
            log.warning("%s:%s: %s has no docstring", each.filepath, each.lineno, each.path)


def page(described: griffe.Module, members: list[Member], table: str = "") -> str:
    """The Markdown of a page: what the package is for, and an entry for each name."""
    entries = "\n".join(f"::: {member.path}\n" for member in members)
    return f"# {described.path} {{#{described.path}}}\n\n{text_of(described)}\n\n{table}\n\n{entries}"


def contents(package: griffe.Module, groups: dict[str, list[Member]]) -> str:
    """A table of all names of a package, with one line each."""
    lines = []
    for group, members in sorted(groups.items()):
        if group:
            lines += [
                "",
                f"**[{package.path}.{group}]({group}.md)**: {text_of(package[group])}".split("\n")[0],
            ]
        if members:
            lines += ["", "| name | description |", "|---|---|"]
        for member in members:
            summary = text_of(member).split("\n")[0].replace("|", "\\|")
            lines.append(f"| [`{member.name}`][{member.path}] | {summary} |")
    return "\n".join(lines)


def text_of(described: Member) -> str:
    """A docstring, or nothing."""
    return described.docstring.value if described.docstring else ""
