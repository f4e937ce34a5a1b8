"""docs/quantizers.md shows two lines of Python for every quantizer and codebook, and they run."""

import inspect
import re
from pathlib import Path

import pytest
import torch

from vq import quantizers

PAGE = (Path(__file__).parents[2] / "docs" / "quantizers.md").read_text()
USAGES = dict(re.findall(r"^#+ (\w+)\n\n```python\n(.*?)```", PAGE, re.M | re.S))
"""The usage of each class, by the heading above it."""


def test_every_quantizer_and_codebook_has_a_usage_and_a_row_in_a_table() -> None:
    classes = [cls for name in quantizers.__all__ if inspect.isclass(cls := getattr(quantizers, name))]
    kinds = (quantizers.Quantizer, quantizers.Codebook, quantizers.AxisQuantizer)
    names = {cls.__name__ for cls in classes if issubclass(cls, kinds) and not inspect.isabstract(cls)}
    assert set(USAGES) == names
    for name in names:
        assert f"\n| [`{name}`](#{name.lower()}) |" in PAGE


@pytest.mark.parametrize("name", sorted(USAGES))
def test_usages_run_and_have_two_lines(name: str) -> None:
    usage = USAGES[name]
    namespace: dict = {"torch": torch, **{each: getattr(quantizers, each) for each in quantizers.__all__}}
    assert len(usage.splitlines()) == 2
    assert f"{name}(" in usage
    torch.manual_seed(0)
    exec(usage, namespace)
    assert namespace["out"].loss.isfinite()
    for shape in re.findall(r"out\.indices has the shape (\([^()]*\))", usage):
        assert namespace["out"].indices.shape == eval(shape)
