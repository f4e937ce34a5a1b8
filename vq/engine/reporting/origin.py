"""What was run: commands, environments, configs, and how the configs of runs differ."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from vq.engine.loop.resuming import changes_between
from vq.engine.reporting.blocks import Block, Code, Table, Text
from vq.engine.reporting.run_folder import Run
from vq.engine.reporting.wording import UNKNOWN

MOST_CHANGES = 200


def what_was_run(runs: Sequence[Run]) -> Iterator[Block]:
    """Tables of commands, environments and differences, and the configs themselves."""
    if commands := [[run.name, _command(record)] for run in runs for record in run.environments]:
        yield Table(caption="Command lines, in the order of time", header=["run", "command"], rows=commands)
    environments = [dict(_leaves(run.environment)) | _seed(run) for run in runs]
    if names := list(dict.fromkeys(name for own in environments for name in own)):
        rows = [[name, *(own.get(name, UNKNOWN) for own in environments)] for name in names]
        yield Table(caption="Environment", header=["", *(run.name for run in runs)], rows=rows)
    if len(runs) > 1:
        yield _differences(runs)
    for run in runs:
        if run.config:
            yield Code(summary=f"The config of {run.name}", text=run.config_text)
        if changed := run.environment.get("changed_files"):
            yield Code(summary=f"Files that were not committed when {run.name} began", text=str(changed))


def _command(record: Mapping[str, Any]) -> str:
    words = record.get("command")
    return shlex.join(map(str, words)) if isinstance(words, list) else UNKNOWN


def _seed(run: Run) -> dict[str, str]:
    return {} if run.seed is None else {"seed": str(run.seed)}


def _leaves(record: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """The values of an environment but the command and the changed files, which have a place of their own."""
    for key, value in record.items():
        if isinstance(value, Mapping) and not prefix:
            yield from _leaves(value, f"{key} ")
        elif f"{prefix}{key}" not in ("command", "changed_files"):
            text = UNKNOWN if value is None else str(value)
            yield f"{prefix}{key}", text[:12] if key == "commit" else text


def _differences(runs: Sequence[Run]) -> Block:
    """The keys in which the configs differ, with the value of each run."""
    first, *others = runs
    changes = [{c.key: c for c in changes_between(first.config, run.config)} for run in others]
    keys = list(dict.fromkeys(key for own in changes for key in own))
    if not keys:
        return Text(text="The configs of the runs are equal.")
    rows = []
    for key in keys[:MOST_CHANGES]:
        old = next(own[key].old for own in changes if key in own)
        rows.append([key, *map(str, (old, *(own[key].new if key in own else old for own in changes)))])
    more = f"; {len(keys) - MOST_CHANGES} more are left out" if len(keys) > MOST_CHANGES else ""
    header = ["key", *(run.name for run in runs)]
    return Table(caption=f"Differences between the configs{more}", header=header, rows=rows)
