"""Runs the sections of the GPU suite, each in a process of its own, and writes report.json and report.md.

Each section has a time limit; together the core sections take less than 9 minutes, and so does each other section. A
section that fails or is cut does not stop the others. With the same --out, a second call measures only what is missing.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from benchmarks.gpu.installation import FOR_TESTS, NEEDED, hardware, installation, is_installed, needs
from benchmarks.gpu.report import markdown, report_of


@dataclass(frozen=True, slots=True)
class Section:
    """A section of the suite.

    Attributes:
        seconds: Its time limit.
        text: What it measures.
        is_core: Whether it runs when no section is named.
    """

    seconds: int
    text: str
    is_core: bool = False


SECTIONS = {
    "nearest": Section(70, "the nearest code against the product of matrices with argmin", is_core=True),
    "entropy": Section(70, "LFQ and IBQ with entropies over 2^14 and 2^18 codes", is_core=True),
    "training": Section(160, "the adversarial step of VQGAN f16", is_core=True),
    "sampling": Section(100, "a Llama generator with guidance", is_core=True),
    "tokenization": Section(70, "JPEG files to tokens against the bare encoder", is_core=True),
    "loop": Section(50, "what the trainer adds to a step of 20 ms", is_core=True),
    "tests": Section(500, "the tests marked gpu"),
    "fullgraph": Section(500, "each quantizer as one compiled graph"),
    "growth": Section(400, "cost against vectors, codes, dimensions, tokens and images"),
}
CORE = tuple(name for name, section in SECTIONS.items() if section.is_core)


def run_section(name: str, arguments: argparse.Namespace, left: float) -> str:
    """Runs a section; returns how it ended.

    Args:
        name: Of the section.
        arguments: Of the command.
        left: Seconds until the command's own limit.
    """
    limit = min(left, arguments.seconds or SECTIONS[name].seconds)
    if limit <= 0:
        return "not started: the time is over; run the command again to go on"
    words = [sys.executable, "-m", f"benchmarks.gpu.{name}", "--out", str(arguments.out / f"{name}.json")]
    words += ["--device", arguments.device, *["--small"] * arguments.small, *["--retry"] * arguments.retry]
    words += ["--llamagen", str(arguments.llamagen)] if arguments.llamagen else []
    process = subprocess.Popen(words, start_new_session=True)  # its workers end with it
    try:
        code = process.wait(limit)
    except BaseException as error:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if not isinstance(error, subprocess.TimeoutExpired):
            raise
        return f"cut after {limit:.0f} s; run the command again to go on"
    return "complete" if code == 0 else f"ended with exit code {code}"


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    lines = [
        f"  {name:13} {'core, ' * section.is_core}{section.seconds} s: {section.text}"
        for name, section in SECTIONS.items()
    ]
    made = argparse.ArgumentParser(
        prog="bash benchmarks/gpu.sh", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="\n".join(["sections:", *lines]),
    )  # fmt: skip
    made.add_argument("sections", nargs="*", help="default: the core sections; 'all' for every one")
    made.add_argument("--out", type=Path, default=Path("work_dirs/gpu"), help="folder of the results")
    made.add_argument("--minutes", type=float, default=8.7, help="limit of the whole command (default 8.7)")
    made.add_argument("--seconds", type=float, help="limit of each section, instead of its own")
    made.add_argument("--retry", action="store_true", help="measure the rows that have an error again")
    made.add_argument("--llamagen", type=Path, metavar="DIR", help="a checkout of FoundationVision/LlamaGen")
    made.add_argument(
        "--needs", nargs="?", const=Path(), type=Path, metavar="LIST",
        help="print which wheels are missing here, or on a machine whose `pip list` is in LIST, and end",
    )  # fmt: skip
    made.add_argument("--device", default="cuda", help="cpu, with --small, only shows that the sections run")
    made.add_argument("--small", action="store_true", help="tiny sizes, whose figures mean nothing")
    return made


def main() -> int:
    """Runs the command."""
    made = parser()
    arguments = made.parse_args()
    if arguments.needs is not None:
        print(needs(None if arguments.needs == Path() else arguments.needs))
        return 0
    wanted = tuple(SECTIONS) if arguments.sections == ["all"] else tuple(arguments.sections) or CORE
    if unknown := [name for name in wanted if name not in SECTIONS]:
        made.error(f"no section {unknown[0]!r}; there are {', '.join(SECTIONS)}")
    if missing := [package.name for package in NEEDED if not is_installed(package)]:
        print(f"not installed: {', '.join(missing)}; --needs lists the wheels to carry here", file=sys.stderr)
        return 2
    if missing := [package.name for package in FOR_TESTS if not is_installed(package)]:
        print(f"not installed, so that tests check less: {', '.join(missing)}", file=sys.stderr)
    deadline, ended = time.monotonic() + 60 * arguments.minutes, {}
    arguments.out.mkdir(parents=True, exist_ok=True)
    about = {
        "command": " ".join(["bash benchmarks/gpu.sh", *sys.argv[1:]]),
        "date": date.today().isoformat(),
        "hardware": hardware(arguments.device),
        "packages": installation(),
        "kernels": os.environ.get("VQ_KERNELS", "triton"),
    }
    for name in wanted:
        ended[name] = run_section(name, arguments, deadline - time.monotonic())
        print(f"{name}: {ended[name]}", file=sys.stderr)
        report = report_of(
            arguments.out, SECTIONS, about, ended
        )  # after each section: the command may be killed
        (arguments.out / "report.json").write_text(f"{json.dumps(report, indent=1)}\n")
        (arguments.out / "report.md").write_text(markdown(report))
    print(f"{arguments.out / 'report.md'}")
    return 0 if all(how == "complete" for how in ended.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
