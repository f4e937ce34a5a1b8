"""docs/zoo.md is what its program writes."""

import importlib.util
from pathlib import Path

PROGRAM = Path(__file__).parents[2] / "docs" / "site" / "zoo.py"


def test_the_page_is_that_of_the_catalogue() -> None:
    spec = importlib.util.spec_from_file_location("zoo_page", PROGRAM)
    assert spec is not None
    assert spec.loader is not None
    program = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)
    assert program.PAGE.read_text() == program.page(), "run python docs/site/zoo.py"
