"""Arrays that the module of another project gave for weights that `fill` makes, and the shapes of published files."""

import gzip
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from foreign_models import fill
from torch import Tensor, nn

HERE = Path(__file__).parent


def pixels(size: int, *, batch: int = 2) -> Tensor:
    """Images in [-1, 1]."""
    return torch.from_numpy(np.random.default_rng(size).uniform(-1, 1, (batch, 3, size, size))).float()


def record(name: str, state: Mapping[str, Tensor], **arrays: Tensor) -> None:
    """Writes arrays, and the names and shapes of the weights that gave them."""
    content: dict[str, Any] = {key: array.numpy() for key, array in arrays.items()}
    content["names"] = np.array(list(state))
    content["shapes"] = np.array([" ".join(map(str, tensor.shape)) for tensor in state.values()])
    np.savez_compressed(HERE / f"{name}.npz", **content)


def recorded(name: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The weights, and the arrays that a module gave for them."""
    with np.load(HERE / f"{name}.npz") as file:
        shapes = zip(file["names"], file["shapes"], strict=True)
        state = {str(own): torch.zeros([int(size) for size in shape.split()]) for own, shape in shapes}
        arrays = {key: torch.from_numpy(file[key]) for key in file if key not in ("names", "shapes")}
    fill(state.items())
    return state, arrays


def write_shapes(family: str, models: Mapping[str, nn.Module | Mapping[str, Tensor]]) -> None:
    """Writes the shapes of all tensors of the published models of a family."""
    states = {
        name: model.state_dict() if isinstance(model, nn.Module) else model for name, model in models.items()
    }
    shapes = {
        name: {key: list(tensor.shape) for key, tensor in state.items()} for name, state in states.items()
    }
    packed = gzip.compress(json.dumps(shapes).encode(), mtime=0)
    (HERE.parent / "zoo" / "shapes" / f"{family}.json.gz").write_bytes(packed)
