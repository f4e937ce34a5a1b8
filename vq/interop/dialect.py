"""What is known of the weight files of one project."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from jaxtyping import Shaped
from torch import Tensor, nn

from vq.errors import UserError

NamedTensors: TypeAlias = Mapping[str, Shaped[Tensor, "..."]]
"""The tensors of a state dict, by name."""


class InteropError(UserError, ValueError):
    """Weights that do not match the tokenizer."""


def _accept_all(module: nn.Module) -> None:
    """Refuses no network."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """A project whose weights can be read. Except for `read`, all functions get what `own` selects.

    Attributes:
        name: The name of the dialect.
        recognises: Whether the names and shapes of some tensors can be those of the project.
        describe: Returns the sections of a config, as plain data, whose model has the tensors. It looks at names and
            shapes only, so that tensors on the meta device will do. It takes the dialect's options by keyword.
        translate: Renames and reshapes the tensors for the model that `describe` describes.
        write: The inverse of `translate`, for dialects that can be written.
        check: Refuses networks that a user gives in place of those of `describe`, and in which the weights would
            compute something else.
        prefixes: Names may begin with one of these. If some do, they are the model, and all others are not.
        ignored: A regular expression for the whole names of tensors that are not part of the model.
        options: The options of `describe`, with their defaults.
    """

    name: str
    recognises: Callable[[NamedTensors], bool]
    describe: Callable[..., dict[str, Any]]
    translate: Callable[[NamedTensors], NamedTensors]
    write: Callable[[NamedTensors], NamedTensors] | None = None
    check: Callable[[nn.Module], None] = _accept_all
    prefixes: tuple[str, ...] = ()
    ignored: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)

    def own(self, state: NamedTensors) -> NamedTensors:
        """The tensors of the model among those of a file, without their prefix."""
        for prefix in self.prefixes:
            inside = {n.removeprefix(prefix): t for n, t in state.items() if n.startswith(prefix)}
            state = inside or state
        return {name: tensor for name, tensor in state.items() if not re.fullmatch(self.ignored, name)}

    def read(self, state: NamedTensors) -> NamedTensors:
        """The tensors of a file, renamed and reshaped for the model here.

        Raises:
            InteropError: If a name has no counterpart, or a value cannot be used.
        """
        return self.translate(self.own(state))
