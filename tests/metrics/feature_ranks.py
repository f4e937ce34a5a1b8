"""Run by test_feature_metrics.py: metrics on ranks with uneven shards, some empty, equal one process.

The ranks are forked from this process, which has no threads: a fork of pytest's may wait for ever for a lock
that a thread held there.
"""

import sys
import warnings
from functools import partial

import torch
from forked_ranks import run_on_ranks
from test_feature_metrics import make_metrics, run

SHARDS = {2: (0, 13, 25), 3: (0, 9, 17, 25), 4: (0, 25, 25, 25, 25)}


def run_rank(rank: int, size: int, expected: dict[str, float]) -> None:
    cuts = SHARDS[size][rank : rank + 2]
    found = run(make_metrics(), cuts if cuts[0] != cuts[1] else ())
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert abs(found[name] - value) <= 1e-9, (
            f"{name}: {found[name]} on rank {rank} of {size}, not {value}"
        )


def main() -> int:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    expected = run(make_metrics())
    return run_on_ranks(partial(run_rank, expected=expected), *SHARDS)


if __name__ == "__main__":
    sys.exit(main())
