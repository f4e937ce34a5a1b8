"""The Python on the pages about quantizers runs: two lines for every class, and the example of a new class."""

import inspect
import re
from pathlib import Path

import pytest
import torch

from vq import quantizers
from vq.registry import QUANTIZERS

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "quantizers.md").read_text()
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


def test_the_example_of_a_new_quantizer_runs_and_passes_its_own_test() -> None:
    module, test, *_ = re.findall(r"```python\n(.*?)```", (DOCS / "adding_a_quantizer.md").read_text(), re.S)
    namespace: dict = {"__name__": "ternary"}
    try:
        exec(module, namespace)
        exec(test.replace("from vq.quantizers.ternary import TernaryQuantizer", ""), namespace)
        namespace["test_codes_are_the_rounded_tanh"]()
        quantizer = namespace["TernaryQuantizer"].example()
        z = torch.randn(50, 4)
        assert torch.equal(quantizer.decode(quantizer.encode(z)), quantizer(z).quantized)
        assert len(quantizer.decode(torch.arange(quantizer.codebook_size)).unique(dim=0)) == 81
    finally:
        QUANTIZERS.module_dict.pop("TernaryQuantizer", None)
