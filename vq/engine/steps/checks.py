"""Checks of the arguments that several training steps take."""

import inspect
from collections.abc import Callable, Iterable, Mapping
from numbers import Real

from torch import nn

from vq.engine.strategies import Strategy
from vq.quantizers import Annealing, Quantizer


def check_all_updated(model: nn.Module, updated: Iterable[nn.Parameter]) -> None:
    """Refuses a parameter that no optimizer updates, unless its part is declared frozen (`Tokenizer.freeze`).

    Raises:
        ValueError: With the names of such parameters.
    """
    known = {id(parameter) for parameter in updated}
    is_frozen: Callable[[str], bool] = getattr(model, "is_frozen", lambda name: False)
    left = [name for name, p in model.named_parameters() if id(p) not in known and not is_frozen(name)]
    if left:
        raise ValueError(
            f"optimizer: {len(left)} parameters are neither updated nor declared frozen: {', '.join(left[:4])}"
            f"{', ...' if len(left) > 4 else ''}; give them to the optimizer, or freeze their part: on a page with "
            f"pretrained_tokenizer(frozen=[...]), in Python with tokenizer.freeze([...])"
        )


def check_not_sharded(strategy: Strategy | None, step: str) -> None:
    """Refuses a strategy that divides the model among ranks, for a step that calls parts of the model by themselves.

    Raises:
        ValueError: With the name of the strategy.
    """
    if strategy is not None and strategy.is_sharded:
        raise ValueError(
            f"strategy: {step} calls parts of the model by themselves, which {type(strategy).__name__} does not "
            f"gather; expected DDP, the default; leave strategy out, or take another step"
        )


def check_annealing(quantizer: Quantizer, annealing: Mapping[str, Annealing]) -> None:
    """Refuses to anneal an attribute that the quantizer does not have, or that is a whole number.

    Raises:
        ValueError: If an attribute is missing, is no real number, or is declared as an integer (`codebook_size`).
    """
    for name in annealing:
        value = getattr(quantizer, name, None)
        if not isinstance(value, Real) or isinstance(value, bool):
            raise ValueError(f"annealing: {type(quantizer).__name__} has no number {name!r} to change")
        if _declared(type(quantizer), name) in (int, "int"):
            raise ValueError(
                f"annealing: {name!r} of {type(quantizer).__name__} is a whole number, which cannot change in training"
            )


def _declared(kind: type, name: str) -> object:
    """The annotation of a constructor's argument or of a class's attribute; None if there is none."""
    argument = inspect.signature(kind).parameters.get(name)
    if argument is not None:
        return argument.annotation
    found = (inspect.get_annotations(base).get(name) for base in kind.__mro__)
    return next((annotation for annotation in found if annotation is not None), None)
