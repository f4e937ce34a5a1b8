"""`build`: children first, arguments checked, slots kept, untrusted configs confined."""

import importlib
from pathlib import Path

import pytest
import torch

from vq.errors import ConfigError
from vq.registry import QUANTIZERS, SLOTS, build, registered_classes, resolve
from vq.slots import CodeName

FSQ = {"type": "vq.quantizers.FiniteScalarQuantizer", "levels": [5, 5]}


def test_children_are_built_first_and_what_comes_at_run_time_may_not_be_in_the_node() -> None:
    node = {"type": "vq.engine.steps.schedules.WarmupCosine", "warmup_steps": 2}
    assert build(node, path="train_step.schedule", total_steps=12).total_steps == 12
    with pytest.raises(
        ConfigError, match=r"train_step.schedule.total_steps: .* comes from trainer.max_steps"
    ):
        build({**node, "total_steps": 3}, path="train_step.schedule", total_steps=12)
    nested = build({"type": CodeName("torch.nn.ModuleList"), "modules": [FSQ]}, path="x")
    assert nested[0].codebook_size == 25
    assert build({"type": torch.nn.ModuleList, "modules": [FSQ]}, path="x")[0].codebook_size == 25


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


NOT_REGISTERED = [
    "os.system",
    "subprocess.check_call",
    "torch.nn.Linear",
    "torch.load",
    "torch.optim.Optimizer",
    "vq.config.load",
    "vq.registry.build",
    "vq.registry.SLOTS",
    "vq.engine.loop.launch.open_log",
    "vq.engine.callbacks.TensorBoard",
    "vq.quantizers.base.torch.hub.load",
    "builtins.exec",
    "a.b.c",
    "..",
    "vq..x",
    "x" * 100_000,
]


@pytest.mark.parametrize("name", NOT_REGISTERED, ids=lambda name: name[:40])
@pytest.mark.parametrize("place", ["tokenizer.encoder", "tokenizer.encoder.anything[3].at_all"])
def test_data_may_name_only_registered_classes(name: str, place: str) -> None:
    with pytest.raises(ConfigError) as error:
        build({"type": name}, path=place)
    assert len(str(error.value)) < 5000


@pytest.mark.parametrize(
    "name",
    [
        "vq.engine.schedules.WarmupCosine",
        "vq.quantizers.revival.ReplaceDeadCodes",
        "vq.networks.cnn.CNNEncoder",
        "vq.engine.adversary.Adversary",
        "vq.engine.trainer.Trainer",
    ],
)
def test_stored_names_of_modules_that_have_moved_are_found(name: str) -> None:
    assert resolve(name, "x").__name__ == name.rpartition(".")[2]


@pytest.mark.parametrize(
    "name", ["vq.engine.nowhere.L1Loss", "vq.networks.losses.L1Loss", "vq.quantizers.nowhere.Thing"]
)
def test_a_class_is_not_found_in_another_package(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"there is no module '{name.rpartition('.')[0]}'"):
        resolve(name, "x")


def test_code_is_told_where_a_module_is_not() -> None:
    with pytest.raises(ConfigError, match=r"there is no module 'vq.engine.nowhere'"):
        resolve(CodeName("vq.engine.nowhere.WarmupCosine"), "x")


def test_every_registered_class_is_offered_by_its_package() -> None:
    """Pages import it from there, and a stored name of a module that has moved is looked up there."""
    for target in registered_classes():
        package = importlib.import_module(".".join(target.__module__.split(".")[:2]))
        assert getattr(package, target.__name__, None) is target, target


def test_a_name_in_data_imports_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "evil_module.py").write_text(
        f"import pathlib\npathlib.Path({str(tmp_path / 'proof')!r}).touch()\nclass Evil: ...\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("evil_module.Evil", "evil_module"):
        for place in ("x", "tokenizer", "tokenizer.quantizer"):
            with pytest.raises(ConfigError):
                build({"type": name}, path=place)
    assert not (tmp_path / "proof").exists()
    assert type(build({"type": CodeName("evil_module.Evil")}, path="x")).__name__ == "Evil"
    assert (tmp_path / "proof").exists()


@pytest.mark.parametrize("name", [None, 3, 2.5, True, [], ["vq"], {}, {"type": "x"}, b"vq"])
def test_a_type_that_is_no_name_is_refused(name: object) -> None:
    with pytest.raises(ConfigError, match="expected the name of a class"):
        build({"type": name}, path="tokenizer")


def test_argument_names_are_checked_before_anything_inside_is_built() -> None:
    built = []
    node = {**FSQ, "unknown": {"type": lambda: built.append(1)}}
    with pytest.raises(ConfigError, match="unknown argument 'unknown'"):
        build(node, path="tokenizer.quantizer")
    assert built == []


def test_depth_is_bounded() -> None:
    node: dict[str, object] = dict(FSQ)
    for _ in range(2000):
        node = {"type": "vq.quantizers.ResidualQuantizer", "quantizers": [node]}
    with pytest.raises(ConfigError, match="nested more than"):
        build(node, path="tokenizer.quantizer")
    inside: dict[str, object] = {
        "type": "vq.tokenizers.ImageTokenizer",
        "quantizer": None,
        "encoder": None,
        "decoder": None,
    }
    inside["quantizer"] = inside
    with pytest.raises(ConfigError):
        build(inside, path="tokenizer")


@pytest.mark.parametrize(
    "name", ["torch.optim.AdamW", "torch.optim.adamw.AdamW", "vq.optimizers.AdamW", "AdamW"]
)
def test_optimizers_of_torch_may_be_named_by_data(name: str) -> None:
    parameters = [torch.nn.Parameter(torch.zeros(1))]
    assert (
        type(build({"type": name, "lr": 1.0}, path="train_step.optimizer", params=parameters))
        is torch.optim.AdamW
    )


@pytest.mark.parametrize(
    "arguments",
    [{"levels": 7}, {"levels": "a"}, {"levels": [[]]}, {"levels": [1 << 70, 1 << 70]}, {"levels": {}}],
)
def test_whatever_a_class_raises_on_values_from_data_is_one_error(arguments: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="FiniteScalarQuantizer refuses its arguments"):
        build({**FSQ, **arguments}, path="tokenizer.quantizer")


def test_the_decorator_leaves_a_class_as_it_is() -> None:
    from vq.quantizers import FiniteScalarQuantizer

    assert QUANTIZERS.get("FiniteScalarQuantizer") is FiniteScalarQuantizer
    assert isinstance(FiniteScalarQuantizer(levels=[5, 5]), torch.nn.Module)
    assert FiniteScalarQuantizer in registered_classes()
    assert SLOTS["quantizer"] is QUANTIZERS
