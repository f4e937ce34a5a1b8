"""tools/slurm.sbatch on a Slurm of one machine: a job that is requeued ends with the weights of an undisturbed run."""

import os
import shutil
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from commands import MARK, ROOT, TINY, environment, processes, run
from safetensors.torch import load_file

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol", "scancel")
MISSING = [name for name in PROGRAMS if shutil.which(name) is None and not Path("/usr/sbin", name).exists()]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(MISSING), reason=f"Slurm is not installed: no {', '.join(MISSING)}"),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can start the daemons of Slurm"),
]  # fmt: skip
CONFIG = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
KillWait=30
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} State=UNKNOWN
PartitionName=all Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""
STEPS = 120
ARGUMENTS = [
    "run", TINY, "--config-options", f"max_steps:{STEPS}", "--override", ".checkpointer.every:4",
    f".evaluator.every:{STEPS}",
]  # fmt: skip


def free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [int(probe.getsockname()[1]) for probe in probes]
    for probe in probes:
        probe.close()
    return ports


class Cluster:
    """A munged, a slurmctld and a slurmd of this machine, with their files in one folder."""

    def __init__(self, folder: Path) -> None:
        (folder / "munge").mkdir(mode=0o700)
        (folder / "spool").mkdir()
        key = folder / "munge" / "key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o600)
        self.config = folder / "slurm.conf"
        host = socket.gethostname().partition(".")[0]
        self.config.write_text(
            CONFIG.format(folder=folder, host=host, ports=free_ports(2), cpus=os.cpu_count() or 1)
        )
        munge = [f"--{name}-file={folder}/munge/{name}" for name in ("key", "pid", "log", "seed")]
        munge.append(f"--socket={folder}/munge/socket")
        self.daemons = [
            subprocess.Popen(
                [program(words[0]), *words[1:]],
                env=self.environment(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            for words in (
                ["munged", "--foreground", "--force", *munge],
                ["slurmctld", "-D"],
                ["slurmd", "-D"],
            )
        ]
        deadline = time.monotonic() + 60
        while "idle" not in self.ask("sinfo", "-h", "-o", "%T"):
            assert time.monotonic() < deadline, (folder / "slurmctld.log").read_text()[-2000:]
            time.sleep(0.5)

    def environment(self) -> dict[str, str]:
        own = environment(SLURM_CONF=str(self.config), PYTHON=sys.executable, PROCESSES="2")
        return {name: value for name, value in own.items() if not name.startswith("SBATCH_")}

    def ask(self, *words: object) -> str:
        done = subprocess.run(
            list(map(str, words)), env=self.environment(), capture_output=True, text=True, check=False
        )
        return done.stdout

    def state(self, job: str) -> str:
        return self.ask("squeue", "-h", "-t", "all", "-j", job, "-o", "%T").strip()

    def submit(self, cwd: Path, mark: str) -> str:
        words = [
            "sbatch",
            "--parsable",
            "--gpus-per-node=0",
            "--cpus-per-task=1",
            "--time=20",
            "--output=out.txt",
        ]
        done = subprocess.run(
            [*words, ROOT / "tools/slurm.sbatch", *map(str, ARGUMENTS)],
            cwd=cwd, env=self.environment() | {MARK: mark}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def close(self) -> None:
        for daemon in reversed(self.daemons):
            daemon.terminate()
        for daemon in self.daemons:
            daemon.wait(timeout=30)


def program(name: str) -> str:
    return shutil.which(name) or f"/usr/sbin/{name}"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path_factory.mktemp("slurm"))
    yield cluster
    cluster.close()


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unbroken")
    run("train", *ARGUMENTS, cwd=folder, ranks=2)
    return folder / f"work_dirs/run/checkpoints/iter_{STEPS}"


def wait_until(
    is_so: Callable[[], bool], job: str, cluster: Cluster, folder: Path, seconds: float = 180
) -> None:
    deadline = time.monotonic() + seconds
    while not is_so():
        output = (folder / "out.txt").read_text() if (folder / "out.txt").exists() else ""
        assert time.monotonic() < deadline, f"{cluster.state(job)}\n{output[-3000:]}"
        time.sleep(0.1)


@pytest.mark.timeout(600)
def test_a_requeued_job_ends_with_the_weights_of_an_undisturbed_run(
    cluster: Cluster, unbroken: Path, tmp_path: Path
) -> None:
    mark = uuid.uuid4().hex
    job = cluster.submit(tmp_path, mark)
    checkpoints = tmp_path / "work_dirs/run/checkpoints"
    wait_until((checkpoints / "iter_8").exists, job, cluster, tmp_path)
    cluster.ask("scontrol", "requeue", job)  # as a preemption does
    wait_until(lambda: cluster.state(job) == "PENDING" and not processes(mark), job, cluster, tmp_path)
    log = (tmp_path / "work_dirs/run/log.txt").read_text()
    assert "SIGTERM asked for it" in log
    assert not list(checkpoints.glob("*.partial"))
    assert not (checkpoints / f"iter_{STEPS}").exists(), "requeued too late to show anything"
    cluster.ask("scontrol", "update", f"JobId={job}", "StartTime=now")  # Slurm waits two minutes otherwise
    wait_until(lambda: cluster.state(job) in ("COMPLETED", "FAILED"), job, cluster, tmp_path)
    assert cluster.state(job) == "COMPLETED", (tmp_path / "out.txt").read_text()[-3000:]
    assert (tmp_path / "work_dirs/run/log.txt").read_text().count("continuing from") == 1
    for name in ("model.safetensors", "model_ema.safetensors"):
        ours, expected = load_file(checkpoints / f"iter_{STEPS}" / name), load_file(unbroken / name)
        assert ours.keys() == expected.keys()
        assert not [key for key in ours if not torch.equal(ours[key], expected[key])], name
