"""What is installed here, which wheels a machine without a network lacks, and which device is measured."""

import importlib.metadata
import importlib.util
import platform
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Package:
    """A distribution that the suite uses.

    Attributes:
        name: Its name in a package index.
        module: What it provides; not found, the package is missing.
        mib: The size of its wheel for Linux and Python 3.12; 0 for those that a CUDA machine has or must build.
    """

    name: str
    module: str
    mib: float = 0.0


NEEDED = (
    Package("torch", "torch"), Package("torchvision", "torchvision"), Package("numpy", "numpy"),
    Package("pillow", "PIL"), Package("einops", "einops", 0.1), Package("jaxtyping", "jaxtyping", 0.1),
    Package("wadler-lindig", "wadler_lindig", 0.1), Package("packaging", "packaging", 0.1),
    Package("rich", "rich", 0.3), Package("safetensors", "safetensors", 0.5),
    Package("simplejpeg", "simplejpeg", 0.4), Package("mmengine", "mmengine", 0.5), Package("addict", "addict", 0.1),
    Package("termcolor", "termcolor", 0.1), Package("yapf", "yapf", 0.3), Package("platformdirs", "platformdirs", 0.1),
    Package("matplotlib", "matplotlib", 8.6), Package("pyyaml", "yaml", 0.8),
)  # fmt: skip
"""Without these no section runs."""

FOR_TESTS = (
    Package("pytest", "pytest", 0.4), Package("pytest-timeout", "pytest_timeout", 0.1),
    Package("beartype", "beartype", 1.6), Package("hypothesis", "hypothesis", 0.6),
)  # fmt: skip
"""Without pytest the section `tests` ends at once; without the others its tests run without their checks."""

PEERS = (
    Package("triton", "triton"), Package("vector-quantize-pytorch", "vector_quantize_pytorch", 0.1),
    Package("einx", "einx", 0.2), Package("frozendict", "frozendict", 0.1), Package("loguru", "loguru", 0.1),
    Package("torch-einops-utils", "torch_einops_utils", 0.1), Package("taming-transformers-rom1504", "taming", 0.1),
    Package("transformers", "transformers", 12.0),
)  # fmt: skip
"""What is compared with: a side whose package is missing is one line, `not installed`."""

PEAK_BFLOAT16 = {"H100": 989.0, "H200": 989.0}
"""Dense bfloat16 TFLOP/s of the SXM cards, from NVIDIA's data sheets; the PCIe and NVL cards have less."""


def is_installed(package: Package) -> bool:
    """Whether a package's module can be found here; nothing is imported."""
    return importlib.util.find_spec(package.module) is not None


def version(package: Package) -> str:
    """The version of a package, or that it is missing."""
    if not is_installed(package):
        return "not installed"
    try:
        return importlib.metadata.version(package.name)
    except importlib.metadata.PackageNotFoundError:
        return "installed"


def installation() -> dict[str, str]:
    """The version of each package that the suite uses."""
    return {package.name: version(package) for package in (*NEEDED, *FOR_TESTS, *PEERS)}


def missing_packages(listing: Path | None = None) -> list[Package]:
    """The packages that are not installed here, or that are not in the output of `pip list` of another machine."""
    everything = (*NEEDED, *FOR_TESTS, *PEERS)
    if listing is None:
        return [package for package in everything if not is_installed(package)]
    text = listing.read_text().replace(",", " ").lower().replace("_", "-")
    there = {word.partition("==")[0] for word in text.split()}
    return [package for package in everything if package.name not in there]


def needs(listing: Path | None = None) -> str:
    """Says which wheels to carry to a machine, and how large they are together."""
    missing = missing_packages(listing)
    if not missing:
        return "nothing is missing"
    lines = [f"{package.name:28} {package.mib or '?':>5} MiB" for package in missing]
    total = sum(package.mib for package in missing)
    unknown = " and those of unknown size" * any(not package.mib for package in missing)
    names = " ".join(package.name for package in missing)
    return "\n".join(
        [*lines, f"together about {total:.1f} MiB{unknown}", f"pip download --no-deps --dest wheels {names}"]
    )


def hardware(device: str) -> str:
    """Describes the device on which the figures are measured; one that does not exist is named as given."""
    import torch

    if device == "cpu":
        return f"{platform.machine()}, CPU, {torch.get_num_threads()} threads"
    if device != "cuda" or not torch.cuda.is_available():
        return f"{device}, which torch {torch.__version__} does not find"
    memory = torch.cuda.get_device_properties(0).total_memory
    return f"{torch.cuda.get_device_name(0)}, {memory / 2**30:.0f} GiB, CUDA {torch.version.cuda}"


def peak_tflops() -> float | None:
    """The dense bfloat16 peak of the present card, if it is a known one."""
    import torch

    if not torch.cuda.is_available():
        return None
    name = torch.cuda.get_device_name(0)
    if "PCIe" in name or "NVL" in name:
        return None
    return next((peak for card, peak in PEAK_BFLOAT16.items() if card in name), None)
