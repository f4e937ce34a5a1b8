"""Breaks trainings, tokenization and generation at random moments, and compares the results: `make soak`.

Each round starts one of these programs, waits for a random moment, and then does what happens to programs on real
machines: it kills or stops them, kills one rank, damages a file, or fills the disk. It checks that the fault took
effect, starts the program again, and compares everything that it has written with the files of an undisturbed run. The
moments are drawn from the seed, and `--seed S --only R` repeats round R.

Bar: every round ends with equal bytes.
"""

import argparse
import json
import os
import platform
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import date
from pathlib import Path

import torch

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))
from commands import MARK, TINY, command, contents, environment, processes, run  # noqa: E402

STEPS, EVERY = 48, 4
TRAINING = [
    "train", "run", TINY, "--config-options", f"max_steps:{STEPS}", "--override",
    ".evaluator.every:24", f".checkpointer.every:{EVERY}", ".trainer.log_every:1",
]  # fmt: skip
ADVERSARY = (
    "dict(type='vq.engine.Adversary', "
    "discriminator=dict(type='vq.networks.PatchDiscriminator', base_width=8, depth=1), "
    "objective=dict(type='vq.losses.HingeObjective'), "
    "optimizer=dict(type='torch.optim.Adam', lr=1e-3, betas=[0.5, 0.9]), "
    "penalties=dict(lecam=dict(type='vq.losses.LeCAMPenalty')), "
    "weights=dict(objective=1.0, lecam=0.01), start_step=2)"
)
COMMANDS: dict[str, list[object]] = {
    "train": TRAINING,
    "adversarial": [
        *TRAINING, ".train_step.type::AdversarialStep", f".train_step.adversary:{ADVERSARY}",
        ".train_step.weights:dict(l1=1.0, quantizer=1.0, adversarial=0.8)",
    ],
    "tokenize": [
        "tokenize", "run", TINY, "--override", ".val_data.dataset.num_images:4000",
        "--images-per-shard", 64, "--out", "made/tokens",
    ],
    "generate": ["generate", "writer", "--num-images", 60, "--batch-size", 1, "--out", "made/pictures"],
}  # fmt: skip
START_SECONDS = 4.0
"""A process that is killed before it has written anything is killed within this time of its start."""
MARKERS = "<!-- make soak writes this part -->", "<!-- end of make soak -->"


class FaultError(AssertionError):
    """A round did not end as it must, or a fault took no effect."""


class TooLateError(Exception):
    """The program had ended before the fault; the round is tried again at an earlier moment."""


@dataclass(frozen=True)
class Subject:
    """A program that is disturbed: one of `COMMANDS`, on some ranks."""

    kind: str
    ranks: int

    def __str__(self) -> str:
        return f"{self.kind}, {self.ranks} {'process' if self.ranks == 1 else 'processes'}"

    @property
    def is_training(self) -> bool:
        return COMMANDS[self.kind][0] == "train"

    @property
    def most(self) -> int:
        """The number of finished results after which no fault begins: about two thirds of all."""
        return {"tokenize": 40, "generate": 40}.get(self.kind, STEPS // EVERY * 2 // 3)

    def finished(self, folder: Path) -> list[Path]:
        """The checkpoints, shards or images that are finished, oldest first."""
        if self.is_training:
            found = (folder / "work_dirs/run/checkpoints").glob("iter_*")
            return sorted(
                (p for p in found if p.name[5:].isdecimal() and (p / "MANIFEST.json").is_file()),
                key=lambda p: int(p.name[5:]),
            )
        found = (folder / "made").rglob("*.bin" if self.kind == "tokenize" else "class*.png")
        return sorted(found, key=lambda p: (p.stat().st_mtime_ns, p.name))

    def victims(self, folder: Path) -> list[Path]:
        """The files of the newest result."""
        newest = self.finished(folder)[-1]
        return sorted(newest.iterdir()) if self.is_training else [newest]

    def smallest(self, reference: Path) -> int:
        """A number of bytes that some file of each result exceeds."""
        files = (reference / "work_dirs/run/checkpoints").glob("iter_*/model.safetensors")
        return min(p.stat().st_size for p in (files if self.is_training else self.finished(reference)))

    def differences(self, folder: Path, reference: Path) -> list[str]:
        """What is not equal to the undisturbed run."""
        if not self.is_training:
            ours = {
                k: v for k, v in contents(folder / "made").items() if not k.endswith((".partial", ".tmp"))
            }
            expected = contents(reference / "made")
            return sorted(k for k in {*ours, *expected} if ours.get(k) != expected.get(k))
        found = []
        run_folder, its_run = folder / "work_dirs/run", reference / "work_dirs/run"
        for checkpoint in sorted((its_run / "checkpoints").glob("iter_*")):
            mine = run_folder / "checkpoints" / checkpoint.name
            for name in ("model.safetensors", "model_ema.safetensors"):
                file = mine / name
                if not file.is_file() or file.read_bytes() != (checkpoint / name).read_bytes():
                    found.append(f"{checkpoint.name}/{name}")
            if not (mine / "train_state.pt").is_file() or state(mine) != state(checkpoint):
                found.append(f"{checkpoint.name}/train_state.pt")
        if rows(run_folder) != rows(its_run):
            found.append("metrics.jsonl")
        return found


def state(checkpoint: Path) -> object:
    return plain(torch.load(checkpoint / "train_state.pt", weights_only=True))


def plain(value: object) -> object:
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    return value.tolist() if isinstance(value, torch.Tensor) else value


def rows(run_folder: Path) -> list[dict[str, object]]:
    """The rows of `metrics.jsonl`, without the times."""
    file = run_folder / "metrics.jsonl"
    lines = file.read_bytes().splitlines(keepends=True) if file.is_file() else []
    found = [json.loads(line) for line in lines if line.endswith(b"\n")]
    return [{k: v for k, v in row.items() if not k.startswith("time/")} for row in found]


class Program:
    """A subject that runs in a folder."""

    def __init__(self, subject: Subject, folder: Path) -> None:
        self.subject, self.folder, self.mark = subject, folder, uuid.uuid4().hex
        words = COMMANDS[subject.kind]
        self.process = subprocess.Popen(
            command(str(words[0]), *words[1:], ranks=subject.ranks), cwd=folder,
            env=environment(**{MARK: self.mark}), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        self._lines: list[bytes] = []
        # A pipe: a limit of the size of files would apply to a file that receives the output.
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        self._lines.extend(self.process.stdout)

    def wait_until(self, moment: int, delay: float) -> None:
        """Returns `delay` seconds after so many results are finished; they must not all be finished then."""
        deadline = time.monotonic() + 240
        while len(self.subject.finished(self.folder)) < moment:
            self.check_alive()
            if time.monotonic() > deadline:
                raise FaultError(f"nothing was written in 240 s: {self.said()[-1000:]}")
            time.sleep(0.005)
        time.sleep(delay)
        self.check_alive()

    def check_alive(self) -> None:
        if (code := self.process.poll()) is not None:
            if code != 0:
                raise FaultError(f"ended by itself with {code}: {self.said()[-2000:]}")
            raise TooLateError

    def ranks(self) -> dict[int, int]:
        """The process of each rank."""
        if self.subject.ranks == 1:
            return {0: self.process.pid}
        found = {}
        for pid in processes(self.mark):
            with suppress(OSError):
                pairs = (Path("/proc") / str(pid) / "environ").read_bytes().split(b"\0")
                found.update({int(p[5:]): pid for p in pairs if p.startswith(b"RANK=")})
        return found

    def send(self, number: signal.Signals) -> None:
        """Sends a signal to all processes, the launcher first."""
        for pid in [self.process.pid, *(p for p in processes(self.mark) if p != self.process.pid)]:
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def end(self, expected: set[int]) -> int:
        """Waits for the end and checks the exit code."""
        try:
            code = self.process.wait(timeout=120)
        except subprocess.TimeoutExpired:
            raise FaultError(f"did not end within 120 s: {self.said()[-1000:]}") from None
        if code == 0 and 0 not in expected:
            raise TooLateError
        if code not in expected:
            raise FaultError(f"ended with {code}, expected {expected}: {self.said()[-2000:]}")
        deadline = time.monotonic() + 10
        while left := processes(self.mark):
            if time.monotonic() > deadline:
                raise FaultError(f"the processes {left} outlive the program by 10 s")
            time.sleep(0.05)
        return code

    def said(self) -> str:
        """What it has printed so far, or in all if it has ended."""
        if self.process.poll() is not None:
            self._reader.join(timeout=10)
        return b"".join(self._lines).decode(errors="replace")

    def must_say(self, words: str) -> None:
        if not re.search(words, self.said()):
            raise FaultError(f"expected {words!r} in what it says, got: {self.said()[-2000:]}")


def kill(program: Program, chance: random.Random) -> None:
    """SIGKILL to every process."""
    for _ in range(3):  # a process may just have started another
        program.send(signal.SIGKILL)
        time.sleep(0.05)
    program.end({-signal.SIGKILL})


def terminate(program: Program, chance: random.Random) -> None:
    """SIGTERM to the launcher."""
    ask(program, signal.SIGTERM, [program.process.pid])


def warn(program: Program, chance: random.Random) -> None:
    """SIGUSR1 to every rank, as Slurm sends it before the time limit."""
    ask(program, signal.SIGUSR1, list(program.ranks().values()))


def ask(program: Program, number: signal.Signals, pids: list[int]) -> None:
    for pid in pids:
        os.kill(pid, number)
    program.end({128 + number} if program.subject.ranks == 1 else {1})
    program.must_say(f"stopped by {number.name}")


def stop_and_continue(program: Program, chance: random.Random) -> None:
    """SIGSTOP to every process, and SIGCONT after a while."""
    program.send(signal.SIGSTOP)
    time.sleep(0.1)
    states = {pid: process_state(pid) for pid in processes(program.mark)}
    if program.process.pid not in states or set(states.values()) != {"T"}:
        program.send(signal.SIGCONT)
        raise FaultError(f"expected stopped processes (T), got {states}")
    time.sleep(0.5 + chance.random())
    program.send(signal.SIGCONT)
    program.end({0})


def process_state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def kill_a_rank(program: Program, chance: random.Random) -> None:
    """SIGKILL to one rank."""
    rank = chance.randrange(program.subject.ranks)
    os.kill(program.ranks()[rank], signal.SIGKILL)
    since = time.monotonic()
    program.end({1})
    if time.monotonic() - since > 30:
        raise FaultError(
            f"ended {time.monotonic() - since:.0f} s after rank {rank} was killed, not within 30"
        )
    program.must_say(rf"rank +: {rank} .*\n +exitcode +: -9 .*\(SIGKILL\)")


def flip_bytes(program: Program, chance: random.Random) -> None:
    """SIGKILL, then other bytes in the newest result."""
    damage(program, chance, lambda content, place: content[:place] + flipped(content[place:]))


def flipped(content: bytes) -> bytes:
    return bytes(byte ^ 0xFF for byte in content[:4]) + content[4:]


def truncate(program: Program, chance: random.Random) -> None:
    """SIGKILL, then a shorter file in the newest result."""
    damage(program, chance, lambda content, place: content[:place])


def damage(program: Program, chance: random.Random, change: Callable[[bytes, int], bytes]) -> None:
    kill(program, chance)
    file = chance.choice(program.subject.victims(program.folder))
    content = file.read_bytes()
    file.write_bytes(change(content, chance.randrange(len(content))))
    if file.read_bytes() == content:
        raise FaultError(f"{file}: nothing was damaged")


def fill_the_disk(program: Program, chance: random.Random) -> None:
    """From now on no file may grow beyond a small size; nothing that the program makes is that small."""
    size = chance.randrange(program.subject.smallest(reference_of(program.subject, program.folder)))
    for pid in program.ranks().values():
        _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, hard))
    program.end({2} if program.subject.ranks == 1 else {1})
    program.must_say("File too large|ulimit -f")


FAULTS: dict[str, Callable[[Program, random.Random], None]] = {
    "SIGKILL to all processes": kill,
    "SIGTERM": terminate,
    "SIGUSR1 to each rank": warn,
    "SIGSTOP, then SIGCONT": stop_and_continue,
    "SIGKILL to one of two ranks": kill_a_rank,
    "SIGKILL, then flipped bytes in the newest result": flip_bytes,
    "SIGKILL, then a truncated file of the newest result": truncate,
    "a disk that is full (RLIMIT_FSIZE)": fill_the_disk,
}


@dataclass
class Round:
    """One fault and what came of it."""

    number: int
    subject: Subject
    fault: str
    is_survived: bool = False
    steps_repeated: int = 0
    files_repeated: int = 0
    data_lost: int = 0
    problem: str = ""
    seconds: float = field(default=0.0)


def plan(seed: int) -> Iterator[Round]:
    """Rounds without end: the kinds take turns, and each goes through all its faults in random order."""
    chance = random.Random(seed)
    waiting: dict[str, list[tuple[int, str]]] = {kind: [] for kind in COMMANDS}
    number = 0
    while True:
        for kind, cases in waiting.items():
            if not cases:
                cases += [(n, f) for n in (1, 2) for f in FAULTS if n == 2 or FAULTS[f] is not kill_a_rank]
                chance.shuffle(cases)
            ranks, fault = cases.pop()
            yield Round(number, Subject(kind, ranks), fault)
            number += 1


def reference_of(subject: Subject, folder: Path) -> Path:
    """The folder of the undisturbed run, beside those of the rounds."""
    # One process and two sum in different orders; indices and images do not depend on the number of processes.
    ranks = subject.ranks if subject.is_training else 1
    return folder.parent / f"reference_{subject.kind}_{ranks}"


def make_reference(subject: Subject, folder: Path) -> None:
    """Runs a subject without a fault, once; `folder` is that of a round."""
    reference = reference_of(subject, folder)
    if reference.exists():
        return
    partial = reference.with_suffix(".partial")
    prepare(subject, partial)
    words = COMMANDS[subject.kind]
    run(str(words[0]), *words[1:], cwd=partial, ranks=subject.ranks if subject.is_training else 1)
    partial.rename(reference)


def prepare(subject: Subject, folder: Path) -> None:
    """Makes the folder of a round, with the trained models that it uses."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    if subject.is_training:
        return
    base = folder.parent / "models"
    if not base.exists():
        base.mkdir()
        run("train", "run", TINY, "--config-options", "max_steps:4", cwd=base)
    if subject.kind == "generate" and not (base / "work_dirs/writer").exists():
        for split in ([], ["--train"]):
            run("tokenize", "run", TINY, *split, cwd=base)
        run("train", "writer", ROOT / "tests" / "tiny_generator_page.py", cwd=base)
    (folder / "work_dirs").symlink_to(base / "work_dirs")


def play(this: Round, seed: int, folder: Path) -> None:
    """One round in a folder that it makes; raises if the end differs from the undisturbed run."""
    subject = this.subject
    make_reference(subject, folder)
    chance = random.Random(f"{seed}/{this.number}")
    # If the only checkpoint is damaged, the training is refused, as it must be: nobody may start it anew unasked.
    least = {kill: 0, flip_bytes: 2, truncate: 2}.get(FAULTS[this.fault], 1)
    moment = chance.randint(least, subject.most)
    delay = chance.random() * (0.2 if moment else START_SECONDS)
    for attempt in range(4):
        prepare(subject, folder)
        program = Program(subject, folder)
        try:
            program.wait_until(max(least, moment >> attempt), delay / 2**attempt)
            FAULTS[this.fault](program, random.Random(f"{seed}/{this.number}/{attempt}"))
            break
        except TooLateError:
            continue
        finally:
            program.send(signal.SIGKILL)
            program.process.wait()
    else:
        raise FaultError("the program ended before the fault, four times")
    before = {path: path.stat().st_mtime_ns for path in subject.finished(folder)}
    last = (
        max((int(row["step"]) for row in rows(folder / "work_dirs/run")), default=0)
        if subject.is_training
        else 0
    )
    if FAULTS[this.fault] is not stop_and_continue:
        words = [*COMMANDS[subject.kind], *(["--auto-resume"] if subject.is_training else [])]
        run(str(words[0]), *words[1:], cwd=folder, ranks=subject.ranks)
        if subject.is_training:
            found = re.findall(
                r"continuing from .*: (\d+) steps are done", (folder / "work_dirs/run/log.txt").read_text()
            )
            this.steps_repeated = max(0, last - int(found[-1] if found else 0))
        else:
            this.files_repeated = sum(path.stat().st_mtime_ns != then for path, then in before.items())
    different = subject.differences(folder, reference_of(subject, folder))
    this.data_lost = len(different)
    if different:
        raise FaultError(
            f"{len(different)} files differ from the undisturbed run: {', '.join(different[:5])}"
        )
    this.is_survived = True


def table(rounds: list[Round]) -> list[str]:
    """A row of Markdown for each fault."""
    found: dict[str, list[Round]] = defaultdict(list)
    for this in rounds:
        found[this.fault].append(this)
    lines = [
        "| fault | rounds | survived | steps repeated | files written again | files lost |",
        "|---|---|---|---|---|---|",
    ]
    for name, group in [(f, found[f]) for f in FAULTS if f in found] + [("**all**", rounds)]:
        sums = [
            sum(getattr(r, key) for r in group) for key in ("steps_repeated", "files_repeated", "data_lost")
        ]
        cells = [len(group), sum(r.is_survived for r in group), *sums]
        lines.append(f"| {name} | {' | '.join(map(str, cells))} |")
    return lines


def write_section(page: Path, lines: list[str]) -> None:
    """Replaces what is between the markers of a page."""
    before, start, rest = page.read_text().partition(MARKERS[0])
    _, end, after = rest.partition(MARKERS[1])
    if not (start and end):
        raise SystemExit(
            f"{page}: expected the lines {MARKERS[0]!r} and {MARKERS[1]!r}, which enclose the table"
        )
    page.write_text(before + "\n".join([start, *lines, end]) + after)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=50, help="how many (default 50)")
    parser.add_argument(
        "--minutes", type=float, default=40.0, help="start no round after this time (default 40)"
    )
    parser.add_argument(
        "--seed", type=int, help="of moments and faults (default: a new one, which is printed)"
    )
    parser.add_argument("--only", type=int, metavar="R", help="play round R alone")
    parser.add_argument(
        "--folder", type=Path, default=Path("build/soak"), help="where it works (default build/soak)"
    )
    parser.add_argument("--docs", type=Path, metavar="PAGE", help="write the table into this page")
    parser.add_argument("--out", type=Path, help="also write all rounds here, as JSON")
    args = parser.parse_args()

    seed = random.SystemRandom().randrange(2**31) if args.seed is None else args.seed
    print(f"seed {seed}", flush=True)
    folder = (args.folder / str(seed)).resolve()
    began, done = time.monotonic(), list[Round]()
    for this in plan(seed):
        elapsed = (time.monotonic() - began) / 60
        if this.number >= (args.rounds if args.only is None else args.only + 1) or elapsed > args.minutes:
            break
        if args.only in (None, this.number):
            done.append(this)
            play_and_report(this, seed, folder / f"round_{this.number}")
    minutes = (time.monotonic() - began) / 60
    survived, cores = sum(this.is_survived for this in done), len(os.sched_getaffinity(0))
    words = f"benchmarks/faults.py --rounds {args.rounds} --minutes {args.minutes:g} --seed {seed}"
    summary = (
        f"`python {words}`, {date.today()}, {cores} CPU cores: {len(done)} rounds in {minutes:.0f} minutes, "
        f"{survived} survived."
    )
    lines = [summary, "", *table(done)]
    print("\n".join(lines))
    if args.docs:
        write_section(args.docs, lines)
    if args.out:
        record = {
            "command": f"python {words}", "date": date.today().isoformat(), "seed": seed,
            "hardware": f"{platform.machine()}; {cores} CPU cores; torch {torch.__version__}",
            "minutes": round(minutes, 1), "survived": survived, "rounds": [asdict(this) for this in done],
        }  # fmt: skip
        args.out.write_text(json.dumps(record, indent=1) + "\n")
    if survived == len(done):
        shutil.rmtree(folder, ignore_errors=True)
    sys.exit(survived < len(done) or not done)


def play_and_report(this: Round, seed: int, folder: Path) -> None:
    since = time.monotonic()
    try:
        play(this, seed, folder)
    except (FaultError, AssertionError, subprocess.TimeoutExpired) as error:
        this.problem = str(error)
        print(f"{this.problem}\nrepeat it with --seed {seed} --only {this.number}; its folder is {folder}")
    else:
        shutil.rmtree(folder)
    this.seconds = round(time.monotonic() - since, 1)
    end = (
        f"survived, {this.steps_repeated} steps and {this.files_repeated} files again"
        if this.is_survived
        else "FAILED"
    )
    print(f"round {this.number}: {this.subject}: {this.fault}: {end} ({this.seconds:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
