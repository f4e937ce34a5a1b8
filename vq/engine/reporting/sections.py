"""The sections of a report, in order."""

from collections.abc import Iterator, Sequence

from vq.config import trained_section
from vq.engine.evaluation.progress import duration
from vq.engine.reporting.blocks import Block, Section, Table
from vq.engine.reporting.codebook import codebook
from vq.engine.reporting.course import speed, timeline
from vq.engine.reporting.curves import losses, scores
from vq.engine.reporting.images import generated, pictures
from vq.engine.reporting.origin import what_was_run
from vq.engine.reporting.run_folder import Run
from vq.engine.reporting.times import Times, times_of
from vq.engine.reporting.wording import UNKNOWN, date, number, some_steps


def sections_of(runs: Sequence[Run]) -> list[Section]:
    """The sections of the page, in order.

    Args:
        runs: One or more; their notes receive what cannot be shown.
    """
    times = [times_of(run.rows) for run in runs]
    found = [
        Section(name="overview", title="Overview", blocks=[_overview(runs, times)]),
        Section(name="run", title="What was run", blocks=list(what_was_run(runs))),
        Section(name="losses", title="Losses", blocks=list(losses(runs))),
        Section(name="scores", title="Scores", blocks=list(scores(runs))),
        Section(name="pictures", title="Pictures of the validation set", blocks=list(pictures(runs))),
        Section(name="codebook", title="Codebook", blocks=list(codebook(runs))),
        Section(name="generated", title="Generated images", blocks=list(generated(runs))),
        Section(name="speed", title="Speed", blocks=list(speed(runs, times))),
        Section(name="timeline", title="Time line", blocks=list(timeline(runs, times))),
    ]
    missing = Section(name="missing", title="What is missing", blocks=list(_missing(runs)))
    return [section for section in [*found, missing] if section.blocks]


def _overview(runs: Sequence[Run], times: Sequence[Times | None]) -> Table:
    facts = [_facts(run, spent) for run, spent in zip(runs, times, strict=True)]
    names = list(dict.fromkeys(name for own in facts for name in own))
    rows = [[name, *(own.get(name, UNKNOWN) for own in facts)] for name in names]
    return Table(caption="The runs", header=["", *(run.name for run in runs)], rows=rows)


def _facts(run: Run, spent: Times | None) -> dict[str, str]:
    """The first things that a reader asks about a run."""
    steps = f"{run.last_step:,}" if run.max_steps is None else f"{run.last_step:,} of {run.max_steps:,}"
    facts = {"state": _state(run), "steps": steps}
    if kind := run.class_of(trained_section(run.config)):
        facts["trained"] = kind
    if quantizer := run.class_of("tokenizer", "quantizer"):
        facts["quantizer"] = quantizer
    if spent is not None:
        facts["began"] = date(spent.starts[0])
        facts["time of training"] = duration(spent.total)
        if spent.median_pace and run.batch_size:
            facts["images per second"] = f"{run.batch_size / spent.median_pace:,.1f}"
    losses = [row.values["loss/total"] for row in run.rows_of("train") if "loss/total" in row.values]
    if losses:
        facts["last loss/total"] = number(losses[-1])
    facts["checkpoints"] = some_steps(run.checkpoints)
    return facts


def _state(run: Run) -> str:
    if run.ended:
        return f"ended early: {run.ended}"
    if run.max_steps is not None and run.last_step >= run.max_steps:
        return "finished"
    if run.is_locked:
        return "training, or killed: run.lock is there"
    return "not finished"


def _missing(runs: Sequence[Run]) -> Iterator[Block]:
    rows = [[run.name, note] for run in runs for note in (*run.notes, *_absent(run))]
    if rows:
        yield Table(
            caption="What the run folders lack, and what could not be read", header=["run", "what"], rows=rows
        )


def _absent(run: Run) -> Iterator[str]:
    """Parts of the page for which the run has nothing."""
    if not run.rows_of("val"):
        yield "no validation during training is recorded"
    if run.rows and times_of(run.rows) is None:
        yield "the rows of metrics.jsonl have no time/elapsed (version 0.1): images per second and a time line of steps"
    if not run.pictures:
        yield "there is no picture of a validation (images/iter_N.png)"
    elif min(run.pictures) > 0:
        yield f"there is no picture of step 0: the first one is of step {min(run.pictures):,}"
    if not run.scorings:
        yield "no checkpoint was scored by `vq val`, so there are no scores with stamps"
    if not any((run.folder / "tokens" / split).is_dir() for split in ("val", "train")):
        yield "there is no token store (`vq tokenize`), so there is no histogram of codes"
