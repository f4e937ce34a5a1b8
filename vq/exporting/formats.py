"""How each format is written and run: `FORMATS` has a `Format` for each name of `vq export --to`."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Shaped
from torch import Tensor, nn
from torch.export import Dim

from vq.errors import UserError
from vq.packages import require

Run = Callable[[Shaped[Tensor, "..."]], Shaped[Tensor, "..."]]
LARGEST_FILE = 2**31 - 2**20
"""The largest number of bytes of weights inside one ONNX file; more are written beside it."""


class ExportError(UserError, ValueError):
    """A tokenizer that cannot be exported as asked."""


class Graph(NamedTuple):
    """What is traced.

    Attributes:
        module: A function of one tensor.
        example: A value of its argument.
        is_dynamic: Whether the first axis of the argument may have any length.
        input_name: The name of the argument in the file.
        output_name: The name of the result in the file.
    """

    module: nn.Module
    example: Shaped[Tensor, "batch ..."]
    is_dynamic: bool
    input_name: str
    output_name: str


class Format(NamedTuple):
    """A format of files.

    Attributes:
        suffix: The end of the names of its files.
        write: Writes a graph to a file.
        load: Reads a file as a function of one tensor.
        packages: The packages that writing needs, as names of modules.
        runtime: The package that running needs; None if that is PyTorch.
    """

    suffix: str
    write: Callable[[Graph, Path], None]
    load: Callable[[Path], Run]
    packages: tuple[str, ...] = ()
    runtime: str | None = None


def _program(graph: Graph) -> torch.export.ExportedProgram:
    batch = Dim("batch", min=1) if graph.is_dynamic else None
    shapes = ({0: batch} if batch is not None else None,)
    return torch.export.export(graph.module, (graph.example,), dynamic_shapes=shapes, strict=False)


def _write_program(graph: Graph, path: Path) -> None:
    # A program that still has blocks of autocast or of no_grad can be saved, but not always be loaded.
    torch.export.save(_program(graph).run_decompositions({}), path)


def _load_program(path: Path) -> Run:
    return torch.export.load(path).module()


def _write_onnx(graph: Graph, path: Path) -> None:
    with _quiet():
        program = torch.onnx.export(
            _program(graph),
            input_names=[graph.input_name],
            output_names=[graph.output_name],
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    size = sum(t.numel() * t.element_size() for t in graph.module.state_dict().values())
    program.save(path, external_data=size > LARGEST_FILE)


def _load_onnx(path: Path) -> Run:
    runtime = require("onnxruntime", needed_by="running an ONNX file")
    options = runtime.SessionOptions()
    options.log_severity_level = 3  # errors only
    session = runtime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    return lambda value: torch.from_numpy(session.run(None, {given.name: value.numpy()})[0])


def _write_torchscript(graph: Graph, path: Path) -> None:
    with _quiet():
        # PyTorch's own comparison of two traces would repeat the work of `vq.exporting.checking`.
        torch.jit.trace(graph.module, (graph.example,), check_trace=False).save(path)


def _load_torchscript(path: Path) -> Run:
    with _quiet():
        return torch.jit.load(path, map_location="cpu")


@contextmanager
def _quiet() -> Iterator[None]:
    """Hides PyTorch's notices about its exporters and about Python values in traces; the result is verified."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


FORMATS = {
    "onnx": Format(".onnx", _write_onnx, _load_onnx, ("onnx", "onnxscript"), "onnxruntime"),
    "torchscript": Format(".torchscript", _write_torchscript, _load_torchscript),
    "exported_program": Format(".pt2", _write_program, _load_program),
}
"""Each format, by its name on the command line."""
