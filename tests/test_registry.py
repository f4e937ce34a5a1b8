"""`build`: children first, arguments checked, slots kept, untrusted configs confined."""

import pytest
import torch

from vq.registry import QUANTIZERS, SLOTS, ConfigError, build, registered_classes

FSQ = {"type": "vq.quantizers.FiniteScalarQuantizer", "levels": [5, 5]}


def test_children_are_built_first_and_runtime_values_win() -> None:
    node = {"type": "vq.engine.schedules.WarmupCosine", "warmup_steps": 2, "total_steps": 3}
    schedule = build(node, path="train_step.schedule", total_steps=12)
    assert schedule.total_steps == 12
    nested = build({"type": "torch.nn.ModuleList", "modules": [FSQ]}, path="x")
    assert nested[0].codebook_size == 25


def test_short_names_come_from_the_slot() -> None:
    assert build({**FSQ, "type": "FiniteScalarQuantizer"}, path="tokenizer.quantizer").codebook_size == 25
    with pytest.raises(ConfigError, match="give 'FiniteScalarQuantizer' by its full dotted name"):
        build({**FSQ, "type": "FiniteScalarQuantizer"}, path="x")
    with pytest.raises(ConfigError, match="no quantizer is called 'FiniteScalarQuantiser'; did you mean"):
        build({**FSQ, "type": "FiniteScalarQuantiser"}, path="tokenizer.quantizer")


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ({**FSQ, "level": 1}, "unknown argument 'level'; did you mean 'levels'"),
        ({"type": FSQ["type"]}, "missing argument 'levels'"),
        ({**FSQ, "levels": [2]}, "tokenizer.quantizer: FiniteScalarQuantizer refuses its arguments"),
        ({"type": "vq.losses.L1Loss"}, "expected a quantizer, got L1Loss, a loss"),
        ({"type": "vq.nowhere.Thing"}, "there is no module"),
        ({"type": "vq.quantizers.Thing"}, "vq.quantizers has no 'Thing'"),
        ({"type": None}, "expected the name of a class"),
    ],
)
def test_what_cannot_be_built_says_where_and_why(node: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(node, path="tokenizer.quantizer")


def test_a_config_from_a_file_may_name_only_registered_classes() -> None:
    build(FSQ, path="tokenizer.quantizer", registered_only=True)
    for name in ("os.system", "torch.nn.Linear", "vq.config.load", "vq.engine.launch.open_log"):
        with pytest.raises(ConfigError, match=r"not a class of vq|not in any registry"):
            build({"type": name}, path="tokenizer.encoder", registered_only=True)


def test_the_decorator_leaves_a_class_as_it_is() -> None:
    from vq.quantizers import FiniteScalarQuantizer

    assert QUANTIZERS.get("FiniteScalarQuantizer") is FiniteScalarQuantizer
    assert isinstance(FiniteScalarQuantizer(levels=[5, 5]), torch.nn.Module)
    assert FiniteScalarQuantizer in registered_classes()
    assert SLOTS["quantizer"] is QUANTIZERS
