"""Imports the parts that belong to one experiment; they stay out of the registries that other tests list."""

import importlib
from typing import Any

import pytest


def imported(module: str, registry: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module; what it registers is forgotten after the test."""
    monkeypatch.setattr(registry, "_module_dict", dict(registry.module_dict))
    return importlib.import_module(module)
