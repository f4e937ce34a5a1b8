"""The static reader agrees with the real signatures, for everything that is registered."""

import inspect
import subprocess
import sys

import pytest
import torch

from vq import signatures
from vq.registry import registered_classes


@pytest.mark.parametrize(
    "target", sorted(registered_classes(), key=lambda c: c.__qualname__), ids=lambda c: c.__name__
)
def test_equals_inspect(target: type) -> None:
    read = signatures.signature(f"{target.__module__}.{target.__qualname__}")
    real = list(inspect.signature(target).parameters.values())
    if target.__init__ is torch.nn.Module.__init__:  # *args, **kwargs, all of which it refuses or ignores
        real = []
    assert read is not None
    assert list(read.names) == [p.name for p in real]
    assert set(read.required) == {p.name for p in real if p.default is p.empty}


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
