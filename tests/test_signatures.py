"""The static reader agrees with the real signatures, for everything that is registered."""

import subprocess
import sys
from pathlib import Path

import pytest

from vq import signatures
from vq.registry import arguments_of, registered_classes


@pytest.mark.parametrize(
    "target", sorted(registered_classes(), key=lambda c: c.__qualname__), ids=lambda c: c.__name__
)
def test_equals_inspect(target: type) -> None:
    read = signatures.signature(f"{target.__module__}.{target.__qualname__}")
    real = arguments_of(target, "x")
    assert read is not None
    assert not real.is_open
    assert list(read.names) == list(real.is_required)
    assert set(read.required) == {name for name, is_required in real.is_required.items() if is_required}


def test_follows_reexports_and_foreign_packages_without_importing_them() -> None:
    code = (
        "import sys; from vq import signatures as s;"
        "print(s.signature('torch.optim.AdamW').names[1], s.has_name('vq.quantizers', 'Nothing'),"
        "'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["lr", "False", "False"]


def test_unknown_is_none_not_a_guess() -> None:
    assert signatures.signature("torch.nn.nowhere.Thing") is None
    assert signatures.has_module("no_such_package.at_all") is False
    assert signatures.has_name("numpy", "zeros") in (True, None)


STEP = "vq.engine.steps.reconstruction.ReconstructionStep"


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("schedule", None, "Schedule"),
        ("schedule", {"type": "vq.engine.Constant"}, None),
        ("optimizer", 3, "Optimizer | None"),
        ("max_gradient_norm", None, None),
        ("max_gradient_norm", 1, None),
        ("max_gradient_norm", "1", "float | None"),
        ("accumulate", 2.0, "int"),
        ("accumulate", 2, None),
        ("unknown", 2, None),
    ],
)
def test_keys_of_an_unpacked_typed_dict_are_arguments_with_types(
    name: str, value: object, expected: str | None
) -> None:
    read = signatures.signature(STEP)
    assert read is not None
    assert read.expected(name, value) == expected
    assert "optimizer" in read.required
    assert "accumulate" in read.names
    assert "accumulate" not in read.required


def test_a_folder_of_modules_needs_no_init_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_parts").mkdir()
    (tmp_path / "own_parts" / "books.py").write_text(
        "class Book:\n    def __init__(self, *, size):\n        pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert signatures.has_module("own_parts.books")
    assert not signatures.has_module("own_parts")
    assert not signatures.has_module("own_parts.shelves")
    found = signatures.signature("own_parts.books.Book")
    assert found is not None
    assert list(found.names) == ["size"]
