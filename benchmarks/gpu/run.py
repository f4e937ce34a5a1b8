"""Runs the sections of the GPU benchmarks, each in a process of its own, and writes one JSON and one Markdown table.

The sections of the core table take less than 9 minutes together; each other section takes less than 9 minutes. A
section that fails does not stop the others. With the same --out, a second call measures only what is missing.
"""

import argparse
import importlib.metadata
import importlib.util
import json
import os
import platform
import subprocess
import sys
import time
from datetime import date
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
CORE = ("nearest", "entropy", "training", "sampling")
OTHERS: tuple[str, ...] = ()
NEEDED = (
    "torch",
    "torchvision",
    "triton",
    "einops",
    "jaxtyping",
    "mmengine",
    "numpy",
    "PIL",
    "rich",
    "safetensors",
    "simplejpeg",
)
PEERS = ("vector_quantize_pytorch", "transformers", "timm", "pytest")


def installation() -> dict[str, str]:
    """Says which packages there are, and which are missing."""
    found = {}
    for module in (*NEEDED, *PEERS):
        if importlib.util.find_spec(module) is None:
            found[module] = "missing"
            continue
        try:
            found[module] = importlib.metadata.version(module)
        except importlib.metadata.PackageNotFoundError:
            found[module] = "installed"
    return found


def hardware(device: str) -> str:
    """Describes the device on which the figures were measured."""
    import torch

    if device == "cpu":
        return f"{platform.machine()}, CPU"
    memory = torch.cuda.get_device_properties(0).total_memory
    return f"{torch.cuda.get_device_name(0)}, {memory / 2**30:.0f} GiB, CUDA {torch.version.cuda}"


def run_section(name: str, arguments: argparse.Namespace, limit: float) -> str:
    """Runs a section; returns how it ended."""
    words = [sys.executable, str(HERE / f"{name}.py"), "--out", str(arguments.out / f"{name}.json")]
    words += ["--device", arguments.device, *(["--small"] if arguments.small else [])]
    try:
        done = subprocess.run(words, timeout=limit, check=False)
    except subprocess.TimeoutExpired:
        return f"cut after {limit:.0f} s; run the command again to go on"
    return "complete" if done.returncode == 0 else f"ended with exit code {done.returncode}"


def table(report: dict[str, Any]) -> str:
    """Writes the report as Markdown."""
    lines = [f"# GPU figures, {report['date']}", "", f"{report['hardware']}; `{report['command']}`", ""]
    for section, rows in report["sections"].items():
        lines += [f"## {section} ({report['ended'].get(section, 'not run')})", ""]
        lines += ["| row | side | median ms | range | peak MiB | bars |", "|---|---|---|---|---|---|"]
        for title, row in rows.items():
            bars = "; ".join(f"{bar} {verdict}" for bar, verdict in row.get("bars", {}).items())
            facts = ", ".join(f"{name} {value}" for name, value in row.get("facts", {}).items())
            for name, side in row.items():
                if name in ("bars", "facts"):
                    continue
                if "ms" not in side:
                    lines.append(f"| {title} | {name} | {side.get('error', side)} | | | |")
                    continue
                spread, peak = f"{side['from']:.3f} to {side['to']:.3f}", side.get("peak_mib")
                lines.append(f"| {title} | {name} | {side['ms']:.3f} | {spread} | {peak} | {bars} |")
                bars = ""
            if facts:
                lines.append(f"| {title} | | | | | {facts} |")
        lines.append("")
    return "\n".join(lines)


def main() -> int:
    """Runs the command."""
    parser = argparse.ArgumentParser(
        prog="bash benchmarks/gpu.sh", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=f"core sections: {', '.join(CORE)}; others: {', '.join(OTHERS) or 'none'}",
    )  # fmt: skip
    parser.add_argument("sections", nargs="*", help="default: the core sections; 'all' for every one")
    parser.add_argument("--out", type=Path, default=Path("work_dirs/gpu"), help="folder of the results")
    parser.add_argument("--minutes", type=float, default=8.5, help="the limit of the whole command")
    parser.add_argument("--device", default="cuda", help=argparse.SUPPRESS)
    parser.add_argument("--small", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    known = (*CORE, *OTHERS)
    wanted = known if arguments.sections == ["all"] else tuple(arguments.sections) or CORE
    if unknown := [name for name in wanted if name not in known]:
        parser.error(f"no section {unknown[0]!r}; there are {', '.join(known)}")
    packages = installation()
    if missing := [name for name in NEEDED if packages[name] == "missing"]:
        print(f"missing packages: {', '.join(missing)}; install them first", file=sys.stderr)
        return 2
    deadline, ended = time.monotonic() + 60 * arguments.minutes, {}
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name in wanted:
        left = deadline - time.monotonic()
        ended[name] = run_section(name, arguments, left) if left > 0 else "not started: the time is over"
        print(f"{name}: {ended[name]}", file=sys.stderr)
    sections = {
        f.stem: json.loads(f.read_text()) for f in sorted(arguments.out.glob("*.json")) if f.stem in known
    }
    report = {
        "command": " ".join(["bash benchmarks/gpu.sh", *sys.argv[1:]]),
        "date": date.today().isoformat(),
        "hardware": hardware(arguments.device),
        "packages": packages,
        "kernels": os.environ.get("VQ_KERNELS", "triton"),
        "ended": ended,
        "sections": sections,
    }
    (arguments.out / "report.json").write_text(json.dumps(report, indent=1) + "\n")
    (arguments.out / "report.md").write_text(table(report))
    print(f"{arguments.out / 'report.md'}")
    return 0 if all(how == "complete" for how in ended.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
