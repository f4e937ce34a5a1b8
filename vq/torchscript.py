"""Reads the tensors of a TorchScript archive without running any code of it.

OpenAI published CLIP as such archives. `torch.jit.load` would compile the code inside, and `torch.load` refuses them.
"""

import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from jaxtyping import Shaped
from torch import Tensor

_TYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


def is_torchscript(file: Path) -> bool:
    """Whether a file is a TorchScript archive."""
    if not zipfile.is_zipfile(file):
        return False
    with zipfile.ZipFile(file) as archive:
        return any(PurePosixPath(name).name == "constants.pkl" for name in archive.namelist())


def read_torchscript(file: Path) -> dict[str, Shaped[Tensor, "..."]]:
    """Reads the parameters and buffers of the module in a TorchScript archive, by their names in its state dict.

    Raises:
        ValueError: If the archive is damaged, or holds objects other than modules, tensors and plain values.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            (index,) = (name for name in archive.namelist() if PurePosixPath(name).name == "data.pkl")
            with archive.open(index) as content:
                module = _Unpickler(content, archive, PurePosixPath(index).parent).load()
    except Exception as error:  # a damaged archive makes zipfile, pickle and torch raise errors of many kinds
        raise ValueError(str(error)) from error
    return dict(_tensors(module, ""))


class _Module:
    """Takes the place of any class that an archive defines, and holds the attributes."""


class _Unpickler(pickle.Unpickler):
    def __init__(self, content: Any, archive: zipfile.ZipFile, folder: PurePosixPath) -> None:
        super().__init__(content)
        self._archive, self._folder = archive, folder
        self._storages: dict[str, Tensor] = {}

    def find_class(self, module: str, name: str) -> Any:
        if module == "__torch__" or module.startswith("__torch__."):
            return _Module
        if module == "torch" and name in _TYPES:
            return _TYPES[name]
        if module == "torch.jit._pickle" and name.startswith("build_") and name.endswith("list"):
            return list
        allowed = {
            ("torch._utils", "_rebuild_tensor_v2"): _rebuilt,
            ("collections", "OrderedDict"): OrderedDict,
        }
        if (module, name) not in allowed:
            raise pickle.UnpicklingError(f"expected modules and tensors, found {module}.{name}")
        return allowed[module, name]

    def persistent_load(self, pid: Any) -> Tensor:
        _, dtype, key, *_ = pid
        if key not in self._storages:
            data = bytearray(self._archive.read(str(self._folder / "data" / key)))
            self._storages[key] = torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)
        return self._storages[key]


def _rebuilt(
    storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: object
) -> Tensor:
    return storage.as_strided(size, stride, offset).contiguous()


def _tensors(module: Any, prefix: str) -> Iterator[tuple[str, Tensor]]:
    """The tensors among the attributes of a module and its submodules."""
    if not isinstance(module, _Module):
        raise ValueError(f"expected a module, got {type(module).__name__}")
    attributes: Mapping[str, Any] = vars(module)
    for name, value in attributes.items():
        if isinstance(value, Tensor):
            yield f"{prefix}{name}", value
        elif isinstance(value, _Module):
            yield from _tensors(value, f"{prefix}{name}.")
