"""Checks by the names of the classes that class numbers mean the same in two sets."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from vq.errors import ConfigError, UserError
from vq.generators import Generator
from vq.probes import LinearProbe
from vq.registry import build
from vq.text import printable

logger = logging.getLogger(__name__)


def check_class_names(model: Any, train: Sequence[str], val: Sequence[str]) -> None:
    """Refuses a validation set whose class numbers mean other classes than in training.

    The classes of the validation set must be the first ones of the training set, of which it may lack the last.
    Tokenizers, and generators of one class, ignore the class.

    Args:
        model: What is trained or validated.
        train: The names of the classes of the training set, in the order of their numbers.
        val: The same of the validation set.

    Raises:
        ConfigError: With the first class that differs.
    """
    depends_on_classes = isinstance(model, Generator | LinearProbe) and model.num_classes > 1
    if not depends_on_classes or tuple(val) == tuple(train)[: len(val)]:
        return
    number = next(i for i, name in enumerate(val) if i >= len(train) or name != train[i])
    there = (
        f"class {number} is {printable(train[number])!r}" if number < len(train) else "there is no such class"
    )
    raise ConfigError(
        f"val_data: class {number} is {printable(val[number])!r}, but in train_data {there}; class numbers follow the "
        f"sorted names, so give both sets a folder for each class (it may be empty) and tokenize again"
    )


def training_class_names(config: Mapping[str, Any]) -> Sequence[str] | None:
    """The names of the classes that a page's model is trained on; None if its training data cannot be read."""
    try:
        names: Sequence[str] = build(config["train_data"], path="train_data").dataset.class_names
    except (UserError, KeyError, OSError, ValueError) as error:
        logger.warning(
            "the class names of val_data are not compared with those of train_data, which cannot be read: %s",
            printable(str(error)),
        )
        return None
    return names
