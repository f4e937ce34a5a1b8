"""Run by test_feature_metrics.py: metrics on ranks with uneven shards, some empty, equal one process.

The ranks are forked from this process, which has no threads: a fork of pytest's may wait for ever for a lock
that a thread held there.
"""

import os
import sys
import tempfile
import warnings
from datetime import timedelta
from multiprocessing import get_context

import torch
import torch.distributed as dist
from test_feature_metrics import make_metrics, run

SHARDS = {2: (0, 13, 25), 3: (0, 9, 17, 25), 4: (0, 25, 25, 25, 25)}


def run_rank(rank: int, size: int, store: str, expected: dict[str, float]) -> None:
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    dist.init_process_group(
        "gloo", init_method=f"file://{store}", rank=rank, world_size=size, timeout=timedelta(seconds=100)
    )
    cuts = SHARDS[size][rank : rank + 2]
    found = run(make_metrics(), cuts if cuts[0] != cuts[1] else ())
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert abs(found[name] - value) <= 1e-9, (
            f"{name}: {found[name]} on rank {rank} of {size}, not {value}"
        )
    dist.barrier()
    dist.destroy_process_group()


def main() -> int:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    expected, context = run(make_metrics()), get_context("fork")
    for size in SHARDS:
        with tempfile.TemporaryDirectory() as folder:
            ranks = [
                context.Process(target=run_rank, args=(rank, size, f"{folder}/store", expected))
                for rank in range(size)
            ]
            for process in ranks:
                process.start()
            for process in ranks:
                process.join()
            if any(process.exitcode for process in ranks):
                return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
