"""The classes of two sets are compared by name: the same number must mean the same class."""

from typing import Any

import pytest
import torch

from vq.engine.assembly.class_names import check_class_names, training_class_names
from vq.errors import ConfigError
from vq.generators import DecoderTransformer, TransformerGenerator


def generator(num_classes: int = 3) -> Any:
    transformer = DecoderTransformer(width=16, depth=1, num_heads=2)
    return TransformerGenerator(
        transformer=transformer, vocabulary_size=4, num_classes=num_classes, grid=(2, 2)
    )


@pytest.mark.parametrize("val", [["a", "c"], ["b"], ["a", "B"], ["a", "b", "c", "d"], ["c", "a", "b"]])
def test_a_number_that_means_another_class_is_refused(val: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"val_data: class \d is .*, but in train_data"):
        check_class_names(generator(4), ["a", "b", "c"], val)


def test_the_message_names_the_first_class_that_differs_and_the_cure() -> None:
    message = r"class 1 is 'c', but in train_data class 1 is 'b'; .* give both sets a folder for each class"
    with pytest.raises(ConfigError, match=message):
        check_class_names(generator(), ["a", "b", "c"], ["a", "c"])


def test_what_does_not_depend_on_numbers_is_let_through() -> None:
    check_class_names(generator(), ["a", "b", "c"], ["a", "b", "c"])
    check_class_names(generator(), ["a", "b", "c"], ["a", "b"])  # the last class is missing
    check_class_names(torch.nn.Linear(1, 1), ["a", "b"], ["c"])  # a tokenizer
    check_class_names(generator(1), ["train"], ["val"])  # folders without classes


def test_training_data_that_are_not_here_are_said(caplog: pytest.LogCaptureFixture) -> None:
    page = {"train_data": {"type": "vq.data.ImageLoader", "batch_size": 1,
                           "dataset": {"type": "vq.data.ImageFolder", "root": "/nowhere"}}}  # fmt: skip
    with caplog.at_level("WARNING", logger="vq"):
        assert training_class_names(page) is None
    page["train_data"]["dataset"] = {"type": "vq.data.DigitsDataset", "split": "val"}
    assert training_class_names(page) == tuple(map(str, range(10)))
