"""Changes the code in small ways and counts how many of these mutants the tests notice.

    python tests/mutation/run.py --num 240 --seed 0     # or: make mutants
    python tests/mutation/run.py --num 240 --seed 0 --again   # survivors only, after a test was added

Each mutant is one change of one file (`mutants.py`), drawn with a fixed seed. It is written into a copy of the
repository, and the tests that execute the changed lines run in a forked process, the most specific first. The mutant
is killed if one of them fails or takes too long. Which test executes which line is measured once with coverage.

Most mutants change a function: all tests are collected once, and the child gives the imported function its new code
(`swap.py`). For the others, such as a changed default, the child is forked before vq is imported.

Everything is kept in `build/mutants`: a run that was stopped continues where it was. A result is used again as long
as the file that it changed is the same.

Why not mutmut or cosmic-ray: mutmut 3 replaces each function by a switch between copies of it. Our checks of shapes
and `vq.signatures` read the source of functions, so they would see the copies. cosmic-ray starts a program per
mutant, which imports torch each time, and runs the same tests for all. Neither draws a sample in proportion to the
files.
"""

import argparse
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
import tomllib
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

sys.path.insert(0, str(Path(__file__).parent))
import mutants as mutation
from mutants import Mutant
from swap import CannotSwapError, swap

ROOT = Path(__file__).parents[2]
WORK = ROOT / "build" / "mutants"
TREE = WORK / "tree"
TERMINAL = os.dup(2)
REASONS = Path(__file__).with_name("equivalent.toml")
AREAS = {  # the beginnings of paths
    "ops": ["vq/ops/"],
    "quantizers": ["vq/quantizers/"],
    "checkpointer": ["vq/engine/loop/checkpoint"],
    "token store": ["vq/data/token"],
    "config": ["vq/config/"],
    "sampling": ["vq/generators/sampling"],
}
TESTS = [
    "tests/ops", "tests/quantizers", "tests/contract", "tests/generators", "tests/data/test_token*.py",
    "tests/engine/test_checkpoint*.py", "tests/engine/test_not_finite.py", "tests/engine/test_trainer.py",
    "tests/engine/test_resume_composition.py", "tests/engine/test_tokenization.py", "tests/engine/test_proposal.py",
    "tests/losses/test_adversarial_losses.py", "tests/metrics/test_statistics.py",
    "tests/metrics/test_feature_metrics.py", "tests/golden",
    "tests/test_config*.py", "tests/test_signatures.py", "tests/test_registry.py",
]  # fmt: skip
"""The tests whose coverage is measured."""
RANKS = "tests/distributed/test_rank_scripts.py::test_ranks_equal_one_process"
CONTRACT = "tests/contract/test_quantizer_contract.py"
COMPILED = f"{CONTRACT}::test_representative_cases_compile_to_one_graph_in_training_and_eval"
UNSEEN = {
    "vq/quantizers": [f"{RANKS}[quantizer_ranks]", COMPILED],
    "vq/ops": [f"{RANKS}[entropy_ranks]", f"{RANKS}[quantizer_ranks]"],
}
"""Tests that run the code in other processes, where coverage does not see it; they are run last."""
UNSEEN_SECONDS = 15.0
KILLED = ("failed", "timed out", "broken at import")
Runner = Callable[[Mutant, list[str], float], tuple[str, str] | None]
"""Runs tests on a mutant within seconds: the outcome and the test that failed, or None if it cannot."""


def target_files() -> list[str]:
    """The source files of all areas."""
    files = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "vq").rglob("*.py"))
    return [file for file in files if any(file.startswith(tuple(places)) for places in AREAS.values())]


def area_of(path: str) -> str:
    return next(name for name, places in AREAS.items() if path.startswith(tuple(places)))


def digest(*paths: Path) -> str:
    return hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()[:16]


def git(*words: str) -> str:
    return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout


def say(text: str) -> None:
    """Writes a line to the terminal, from a child too."""
    os.write(TERMINAL, f"{text}\n".encode())


def copy_tree() -> None:
    """Copies the files of the checkout, those that git does not know included, to where mutants are written."""
    names = git("ls-files", "--cached", "--others", "--exclude-standard").splitlines()
    kept = {name for name in names if (ROOT / name).is_file()}
    for old in [path for path in TREE.rglob("*.py") if str(path.relative_to(TREE)) not in kept]:
        old.unlink()
    for name in kept:
        source, target = ROOT / name, TREE / name
        if not target.exists() or target.read_bytes() != source.read_bytes():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)


def preload() -> None:
    """Imports what vq and the tests need, but nothing of vq."""
    import hypothesis  # noqa: F401
    import matplotlib.pyplot  # noqa: F401
    import mmengine.config
    import mmengine.registry  # noqa: F401
    import pytest  # noqa: F401
    import scipy.linalg
    import scipy.stats  # noqa: F401
    import skimage.metrics  # noqa: F401
    import torch.distributed
    import torch.utils.checkpoint
    import torchvision  # noqa: F401

    torch.set_num_threads(1)
    assert "vq" not in sys.modules


def in_child(work: Callable[[], Any], limit: float, log: Path) -> Any:
    """Runs `work` in a forked process, in the copy of the repository; its result, or None if it took too long."""
    result = log.with_suffix(".json")
    result.unlink(missing_ok=True)
    child = os.fork()
    if child == 0:
        try:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.setsid()
            output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(output, 1)
            os.dup2(output, 2)
            os.chdir(TREE)
            sys.path[:] = [
                str(TREE),
                *(p for p in sys.path if Path(p).resolve() not in (ROOT, ROOT / "tests")),
            ]
            os.environ["PYTHONPATH"] = str(TREE)
            result.write_text(json.dumps(work()))
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(0)
    deadline = time.monotonic() + limit
    try:
        while time.monotonic() < deadline:
            if os.waitpid(child, os.WNOHANG)[0]:
                if not result.is_file():
                    raise ChildProcessError(f"it ended without a result; see {log}")
                return json.loads(result.read_text())
            time.sleep(0.02)
        return None
    finally:
        with suppress(ProcessLookupError, ChildProcessError):  # it, or what its tests have started
            os.killpg(child, signal.SIGTERM)
            time.sleep(0.1)
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)


class Measured:
    """A plugin of pytest that notes for each test whether it passed, how long it took, and which lines it ran."""

    def __init__(self) -> None:
        import coverage

        self.coverage = coverage.Coverage(data_file=None, include=[str(TREE / f) for f in target_files()])
        self.coverage.start()
        self.tests: dict[str, dict[str, Any]] = {}

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self.coverage.switch_context(nodeid)
        self.tests[nodeid] = {"seconds": 0.0, "passed": False, "lines": {}}

    def pytest_runtest_logreport(self, report: Any) -> None:
        test = self.tests[report.nodeid]
        test["seconds"] += report.duration
        if report.when == "call":
            test["passed"] = report.passed

    def end(self) -> dict[str, dict[str, Any]]:
        self.coverage.stop()
        data = self.coverage.get_data()
        for file in data.measured_files():
            for line, contexts in data.contexts_by_lineno(file).items():
                for context in filter(None, contexts):
                    lines = self.tests[context]["lines"]
                    lines.setdefault(str(Path(file).relative_to(TREE)), []).append(line)
        return self.tests


class Chosen:
    """A plugin of pytest that runs some tests in a given order, and notes the first that fails."""

    def __init__(self, tests: list[str]) -> None:
        self.place = {test: i for i, test in enumerate(tests)}
        self.failed = ""

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        items[:] = sorted(
            (item for item in items if item.nodeid in self.place), key=lambda item: self.place[item.nodeid]
        )

    def pytest_collectreport(self, report: Any) -> None:
        if report.failed and not self.failed:
            self.failed = f"(collection of {report.nodeid})"

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed and not self.failed:
            self.failed = report.nodeid


def pytest_here(files: Iterable[str], plugin: object, *options: str) -> int:
    """Runs pytest in this process."""
    import pytest

    words = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--hypothesis-seed=0"]
    words += ["--rootdir", str(TREE), "--basetemp", str(WORK / "temporary")]
    words += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # this process has imported plugins already
    return int(pytest.main([*words, *options, *files], plugins=[plugin]))


def measure() -> dict[str, dict[str, Any]]:
    """Which tests run which lines; measured anew for test files that changed, and for all if vq has changed."""
    folder = WORK / "coverage"
    folder.mkdir(exist_ok=True)
    state = digest(*sorted((TREE / "vq").rglob("*.py")))
    files = sorted({path for place in TESTS for path in _test_files(place)})
    kept = {str(file): folder / f"{file.stem}_{state}_{digest(TREE / file)}.json" for file in files}
    missing = [file for file, place in kept.items() if not place.is_file()]
    for batch in [missing[i : i + 8] for i in range(0, len(missing), 8)]:
        say(f"measuring {' '.join(batch)}")

        def work(batch: Sequence[str] = batch) -> dict[str, dict[str, Any]]:
            plugin = Measured()
            pytest_here(batch, plugin)
            return plugin.end()

        found = in_child(work, 1800, WORK / "measured.log") or {}
        for file in batch:
            own = {name: test for name, test in found.items() if name.split("::", maxsplit=1)[0] == file}
            kept[file].write_text(json.dumps(own))
    tests: dict[str, dict[str, Any]] = {}
    for place in kept.values():
        tests |= json.loads(place.read_text())
    return {name: test for name, test in tests.items() if test["passed"]}


def _test_files(place: str) -> Iterable[Path]:
    found = (TREE / place).rglob("test_*.py") if (TREE / place).is_dir() else TREE.glob(place)
    return (path.relative_to(TREE) for path in found)


def tests_for(mutant: Mutant, tests: dict[str, dict[str, Any]], budget: float) -> tuple[list[str], float]:
    """The tests that run the changed lines, the most specific first, and how long they take.

    Lines that run at import (defaults, constants, class bodies) belong to the tests of the function, class or file
    around them.
    """
    scopes = [mutant.lines, mutant.scope, (1, 10**9)]
    for first, last in scopes:
        found = [
            name
            for name, test in tests.items()
            if any(first <= line <= last for line in test["lines"].get(mutant.path, ()))
        ]
        if found:
            break
    path = Path(mutant.path)
    names = [path.stem.removesuffix("s"), path.parent.name.removesuffix("s")]

    def order(name: str) -> tuple[int, int, float]:
        file = Path(name.split("::", maxsplit=1)[0]).stem
        mirror = next((i for i, own in enumerate(names) if own in file), len(names))
        reach = sum(map(len, tests[name]["lines"].values()))
        return mirror, reach, tests[name]["seconds"]

    # One case of each test first, then the second of each.
    cases = Counter[str]()
    turns = []
    for name in sorted(found, key=order):
        test = name.split("[", maxsplit=1)[0]
        turns.append((cases[test], name))
        cases[test] += 1
    chosen, seconds = [], 0.0
    for _, name in sorted(turns, key=lambda turn: turn[0]):
        if seconds + tests[name]["seconds"] <= budget:
            chosen.append(name)
            seconds += tests[name]["seconds"]
    unseen = [test for place, names in UNSEEN.items() if mutant.path.startswith(place) for test in names]
    return chosen + unseen, seconds + UNSEEN_SECONDS * len(unseen)


def judge(mutant: Mutant, tests: list[str], limit: float, run: Runner) -> dict[str, Any] | None:
    """Writes a mutant into the copy, runs tests on it, and puts the original back; None if `run` cannot."""
    target, original = TREE / mutant.path, (ROOT / mutant.path).read_text()
    shutil.rmtree(TREE / ".hypothesis", ignore_errors=True)
    begin = time.monotonic()
    try:
        _write(target, mutant.apply(original))
        found = run(mutant, tests, limit) if tests else ("not reached", "")
    finally:
        _write(target, original)
    if found is None:
        return None
    duration = round(time.monotonic() - begin, 1)
    return {"outcome": found[0], "test": found[1], "tests": len(tests), "seconds": duration}


def run_after_import(mutant: Mutant, tests: list[str], limit: float) -> tuple[str, str] | None:
    """Runs tests in a process that imports the mutant: what became of it, and the test that failed."""

    def work() -> tuple[int, str]:
        plugin = Chosen(tests)
        code = pytest_here(dict.fromkeys(test.split("::", maxsplit=1)[0] for test in tests), plugin, "-x")
        return code, plugin.failed

    try:
        found = in_child(work, limit, WORK / "mutant.log")
    except ChildProcessError:
        return "failed", "(the process crashed)"
    if found is None:
        return "timed out", ""
    code, failed = found
    assert code != 5, f"no test was found; see {WORK / 'mutant.log'}"
    if code == 0:
        return "survived", ""
    return ("failed" if code == 1 and not failed.startswith("(") else "broken at import"), failed


class Collected:
    """A plugin of pytest that calls a function instead of running the tests, once all are imported and collected."""

    def __init__(self, work: Callable[[Runner], None]) -> None:
        self.work = work
        self.failed = ""

    def pytest_runtestloop(self, session: Any) -> bool:
        items = {item.nodeid: item for item in session.items}

        def run(mutant: Mutant, tests: list[str], limit: float) -> tuple[str, str] | None:
            """Runs tests in a fork of this process, in which functions have the code of the mutant."""

            def work() -> tuple[str, str] | None:
                original = (ROOT / mutant.path).read_text()
                try:
                    swap(TREE / mutant.path, original, mutant.apply(original))
                except CannotSwapError:
                    return None
                chosen = [items[test] for test in tests]
                for item, following in zip(chosen, [*chosen[1:], None], strict=True):
                    item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
                    if self.failed:
                        return "failed", self.failed
                return "survived", ""

            if mutant.lines == mutant.scope or not all(test in items for test in tests):
                return None
            try:
                found = in_child(lambda: [work()], limit, WORK / "mutant.log")
            except ChildProcessError:
                return "failed", "(the process crashed)"
            return ("timed out", "") if found is None else found[0]

        self.work(run)
        return True

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed and not self.failed:
            self.failed = report.nodeid


def _write(target: Path, text: str) -> None:
    """Replaces a source file, and removes its bytecode, which may be as old and as long as that of the new text."""
    for compiled in (target.parent / "__pycache__").glob(f"{target.stem}.*"):
        compiled.unlink()
    target.write_text(text)


def report(drawn: list[Mutant], rows: dict[str, dict[str, Any]], seed: int) -> dict[str, Any]:
    """What is written to the results: the rate of each area, and every mutant."""
    reasons = {
        (entry["path"], entry["function"], entry["before"], entry["after"]): entry["reason"]
        for entry in tomllib.loads(REASONS.read_text())["mutant"]
    }
    listed = []
    by_area = {name: Counter[str]() for name in (*AREAS, "all")}
    for mutant in drawn:
        row = rows[mutant.key]
        killed = row["outcome"] in KILLED
        reason = reasons.get((mutant.path, mutant.function, mutant.before, mutant.after), "")
        for name in (area_of(mutant.path), "all"):
            by_area[name]["mutants"] += 1
            by_area[name]["killed"] += killed
            by_area[name]["broken at import"] += row["outcome"] == "broken at import"
            by_area[name]["equivalent"] += not killed and bool(reason)
        listed.append(
            {
                "area": area_of(mutant.path), "path": mutant.path, "line": mutant.line, "function": mutant.function,
                "kind": mutant.kind, "before": mutant.before, "after": mutant.after, "outcome": row["outcome"],
                "killed_by": row["test"], "reason": "" if killed else reason,
            }
        )  # fmt: skip
    return {
        "command": f"python tests/mutation/run.py --num {len(drawn)} --seed {seed}",
        "commit": git("rev-parse", "HEAD").strip(),
        "rate": round(by_area["all"]["killed"] / len(drawn), 4),
        "areas": {name: dict(counts) for name, counts in by_area.items()},
        "mutants": listed,
    }


def markdown(results: dict[str, Any]) -> str:
    """The report for a reader: the rates, then the survivors."""
    lines = [
        "# Mutation check",
        f"`{results['command']}` at commit `{results['commit'][:12]}`",
        "",
        "| area | mutants | killed | of these broken at import | survivors that change nothing | rate |",
        "|---|---|---|---|---|---|",
    ]
    for name, counts in results["areas"].items():
        numbers = [counts[key] for key in ("mutants", "killed", "broken at import", "equivalent")]
        cells = " | ".join(map(str, numbers))
        lines.append(f"| {name} | {cells} | {counts['killed'] / counts['mutants']:.1%} |")
    lines += ["", "## Survivors"]
    for row in results["mutants"]:
        if row["outcome"] not in KILLED:
            lines += ["", f"{row['path']}:{row['line']}"]
            lines += [f"* before: {_code(row['before'])}", f"* after: {_code(row['after'])}"]
            lines += textwrap.wrap(f"* {row['reason'] or row['outcome']}", 120, subsequent_indent="  ")
    return "\n".join(lines) + "\n"


def _code(text: str) -> str:
    short = " ".join(text.split())
    return "`" + (short if len(short) <= 90 else short[:87] + "...") + "`"


def main() -> None:
    """Draws, measures, judges and reports."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--num", type=int, default=240, help="how many mutants are drawn")
    parser.add_argument("--seed", type=int, default=0, help="of the draw")
    parser.add_argument("--budget", type=float, default=60.0, help="seconds of tests for each mutant")
    parser.add_argument("--again", action="store_true", help="judge those anew that have survived")
    parser.add_argument("--out", type=Path, help="writes OUT.json and OUT.md")
    options = parser.parse_args()

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the child is ended, too
    TREE.mkdir(parents=True, exist_ok=True)
    copy_tree()
    sources = {path: (ROOT / path).read_text() for path in target_files()}
    found = {path: mutation.find(path, source) for path, source in sources.items()}
    drawn = mutation.draw({path: each for path, each in found.items() if each}, options.num, options.seed)
    preload()
    tests = measure()
    rows = judge_all(drawn, tests, options.budget, options.again)
    results = report(drawn, rows, options.seed)
    if options.out:
        options.out.with_suffix(".json").write_text(json.dumps(results, indent=1) + "\n")
        options.out.with_suffix(".md").write_text(markdown(results))
    sys.stdout.write(markdown(results))


def judge_all(
    drawn: list[Mutant], tests: dict[str, dict[str, Any]], budget: float, again: bool
) -> dict[str, dict[str, Any]]:
    """The outcome of each mutant; a new one is appended to the file of outcomes at once."""
    kept = WORK / "outcomes.jsonl"
    states = {path: digest(ROOT / path) for path in {mutant.path for mutant in drawn}}
    rows: dict[str, dict[str, Any]] = {}
    for line in kept.read_text().splitlines() if kept.is_file() else []:
        row = json.loads(line)
        if row["state"] == states.get(row["key"].split("::")[0]):
            rows[row["key"]] = row
    wanted = [m for m in drawn if m.key not in rows or (again and rows[m.key]["outcome"] not in KILLED)]

    judged: dict[str, dict[str, Any]] = {}

    def judge_with(run: Runner) -> None:
        for mutant in list(wanted):
            chosen, seconds = tests_for(mutant, tests, budget)
            row = judge(mutant, chosen, 45 + 4 * seconds, run)
            if row is None:
                continue
            wanted.remove(mutant)
            judged[mutant.key] = row | {"key": mutant.key, "state": states[mutant.path]}
            with kept.open("a") as file:
                file.write(json.dumps(judged[mutant.key]) + "\n")
            outcome = f"{row['outcome']} {row['seconds']} s {row['test']}"
            say(f"{len(wanted)} left; {mutant.path}:{mutant.line} {outcome}")

    def judge_collected() -> dict[str, dict[str, Any]]:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        files = sorted({name.split("::", maxsplit=1)[0] for name in tests})
        unseen = {name.split("::", maxsplit=1)[0] for names in UNSEEN.values() for name in names}
        pytest_here([*files, *unseen], Collected(judge_with))
        return judged

    if wanted:
        judged |= in_child(judge_collected, float("inf"), WORK / "collected.log")
        wanted = [mutant for mutant in wanted if mutant.key not in judged]
    judge_with(run_after_import)
    return rows | judged


if __name__ == "__main__":
    main()
