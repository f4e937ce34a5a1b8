"""Checks of the machine and of what is installed on it."""

import importlib.metadata
import os
import platform
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from packaging.requirements import Requirement
from packaging.version import Version

from vq import packages
from vq.engine.doctor.case import Case
from vq.engine.doctor.findings import Finding, bytes_in_words, from_error, ok, trouble, warning
from vq.errors import ConfigError

BUSY = 0.1
"""The part of a GPU's memory that other processes may use without a warning."""


def check_versions(case: Case) -> Iterator[Finding]:
    """Python, and each required package against the lower bound of this project."""
    try:
        required = importlib.metadata.requires("vq") or []
    except importlib.metadata.PackageNotFoundError:
        yield warning("packages", "vq is not installed, so versions are not compared", "pip install -e .")
        return
    faults = list(outdated(required))
    yield from faults
    if not faults:
        yield ok(
            "packages", f"Python {platform.python_version()}, torch {torch.__version__}, all as required"
        )


def outdated(required: Sequence[str]) -> Iterator[Finding]:
    """The packages that are missing or older than required; extras are left out.

    Args:
        required: Requirements as in a package's metadata, such as `torch>=2.11`.
    """
    for text in required:
        requirement = Requirement(text)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            found = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            yield trouble("packages", f"{requirement.name} is missing", f"pip install '{requirement}'")
            continue
        if not requirement.specifier.contains(found, prereleases=True):
            yield trouble(
                "packages", f"{requirement.name} is {found}, expected {requirement.specifier}",
                f"pip install --upgrade '{requirement}'",
            )  # fmt: skip


def check_torchvision(case: Case) -> Iterator[Finding]:
    """Whether torchvision was built for the installed torch, whose operators it extends."""
    required = importlib.metadata.requires("torchvision") or []
    yield from mismatched(required, torch.__version__, importlib.metadata.version("torchvision"))


def mismatched(required: Sequence[str], version: str, torchvision: str) -> Iterator[Finding]:
    """Compares the version of torch with the one that torchvision requires.

    Args:
        required: The requirements of torchvision.
        version: The version of torch.
        torchvision: The version of torchvision.
    """
    wanted = next((r for r in map(Requirement, required) if r.name == "torch"), None)
    present = Version(version).public
    if wanted is not None and not wanted.specifier.contains(present, prereleases=True):
        yield trouble(
            "torchvision",
            f"torchvision {torchvision} is made for torch{wanted.specifier}, got torch {version}",
            "install both again with one command: pip install --upgrade torch torchvision",
        )
    elif not _has_operators():
        yield trouble(
            "torchvision", f"the operators of torchvision {torchvision} do not load into torch {version}",
            "install both again from one index: pip install --force-reinstall torch torchvision",
        )  # fmt: skip


def _has_operators() -> bool:
    try:
        import torchvision  # noqa: F401  # which loads its operators into torch
    except (RuntimeError, OSError):
        return False
    return hasattr(torch.ops.torchvision, "nms")


def check_device(case: Case) -> Iterator[Finding]:
    """Whether the device exists, is used, and is free."""
    kind = case.device
    try:
        torch.zeros(1, device=kind).add_(1)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).strip().partition("\n")[0]
        yield trouble("device", f"{kind} cannot be used here: {reason}", "use --device cpu")
        return
    if torch.device(kind).type == "cuda":
        yield from _check_gpu(kind)
    elif torch.cuda.is_available():
        yield warning(
            "device", f"a GPU is there ({torch.cuda.get_device_name()}) and is not used", "leave out --device"
        )
    else:
        faults = list(unused_gpu(Path("/dev")))
        yield from faults or [ok("device", f"cpu, {case.world.cores} cores; torch finds no GPU")]
    if torch.cuda.device_count() > 1 and case.world.ranks == 1 and torch.device(kind).type == "cuda":
        yield warning(
            "device", f"{torch.cuda.device_count()} GPUs are there, and one process uses one of them",
            "start with auto_torchrun -m vq.train",
        )  # fmt: skip


def _check_gpu(kind: str) -> Iterator[Finding]:
    free, total = torch.cuda.mem_get_info(kind)
    yield ok(
        "device",
        f"{torch.cuda.get_device_name(kind)}, {bytes_in_words(free)} of {bytes_in_words(total)} free",
    )
    if total - free > BUSY * total:
        yield warning(
            "device", f"other processes use {bytes_in_words(total - free)} of the GPU's memory",
            "nvidia-smi lists them", step=1,
        )  # fmt: skip


def unused_gpu(devices: Path) -> Iterator[Finding]:
    """A GPU of NVIDIA whose device files exist, although torch cannot use it.

    Args:
        devices: The folder of device files.
    """
    if any(devices.glob("nvidia[0-9]*")):
        build = (
            "was built without CUDA"
            if torch.version.cuda is None
            else f"is built for CUDA {torch.version.cuda}"
        )
        yield warning(
            "device", f"this machine has a GPU of NVIDIA, but torch {torch.__version__}, which {build}, cannot use it",
            "install a torch for CUDA, or a newer driver",
        )  # fmt: skip


def check_precision(case: Case) -> Iterator[Finding]:
    """Whether the device computes in bfloat16, if `--autocast` asks for it."""
    is_gpu = torch.device(case.device).type == "cuda" and torch.cuda.is_available()
    if not case.options.autocast:
        if is_gpu and torch.cuda.is_bf16_supported(including_emulation=False):
            yield ok("precision", "float32; --autocast would use bfloat16, which this GPU computes faster")
        return
    if is_gpu and not torch.cuda.is_bf16_supported(including_emulation=False):
        yield warning("precision", "this GPU only emulates bfloat16", "leave out --autocast", step=1)
    elif not is_gpu and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        yield warning("precision", "this CPU only emulates bfloat16, slowly", "leave out --autocast", step=1)
    else:
        yield ok("precision", "bfloat16 (--autocast) is supported")


def check_tuning(case: Case) -> Iterator[Finding]:
    """Whether the memory layout is possible on the device, and whether there is a compiler for `--compile`."""
    tuning = case.options.tuning
    if tuning.is_channels_last and case.device == "cpu":
        try:
            replace(tuning, is_compiled=False).apply(torch.nn.Conv2d(1, 1, 1, device="cpu"), [])
        except ConfigError as error:
            yield from_error("--channels-last", error)
    compilers = [os.environ.get("CXX", ""), "g++", "clang++", "c++"]
    if tuning.is_compiled and not any(shutil.which(name) for name in compilers if name):
        yield trouble(
            "--compile", "torch.compile needs a C++ compiler, and there is none",
            "install g++, set CXX, or leave it out", step=1,
        )  # fmt: skip


def check_loggers(case: Case) -> Iterator[Finding]:
    """Whether the packages of the loggers are installed."""
    if not packages.is_installed("tensorboard"):
        yield warning(
            "tensorboard", "the package is not installed, so there will be no TensorBoard files",
            packages.how_to_install("tensorboard"), step=None,
        )  # fmt: skip
    if case.options.wandb and not packages.is_installed("wandb"):
        yield trouble("--wandb", "the package wandb is not installed", packages.how_to_install("wandb"))
