"""The table of docs/export.md is what a tiny tokenizer with each quantizer gives."""

from collections.abc import Iterator
from pathlib import Path

import jaxtyping
import pytest


@pytest.fixture
def without_shape_checks() -> Iterator[None]:
    """While TorchScript traces a function, sizes are tensors, which the checks of this suite refuse."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("without_shape_checks")
def test_the_table_of_the_documentation_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "contract"))
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    import table

    page = table.PAGE.read_text()
    assert page.partition(table.BEGIN)[2].partition(table.END)[0] == table.table()
