"""What a mutant changes, and what is never changed."""

import ast
import importlib
import textwrap
from pathlib import Path

import mutants as mutation
import pytest
from mutants import Mutant
from swap import CannotSwapError, swap


def mutants_of(source: str) -> list[Mutant]:
    return mutation.find("file.py", textwrap.dedent(source))


@pytest.mark.parametrize(
    ("line", "changed"),
    [
        ("x = a < b", ["x = (a <= b)"]),
        ("x = a is b", ["x = (a is not b)"]),
        ("x = a @ b", []),
        ("x = a % b", ["x = (a // b)"]),
        ("x = a and b", ["x = (a or b)"]),
        ("x = not a", ["x = (a)"]),
        ("x = True", ["x = False"]),
        ("x = 0.5", ["x = (1.0)"]),
        ("x = 1e-5", ["x = (0.01)"]),
        ("x = 0", ["x = (1)"]),
        ("x += a", ["pass", "x -= a"]),
        ("f(a)", ["pass"]),
        ("x = f(a, k=b)", ["x = (f(a))"]),
        ("x = min(a, b)", ["x = (max(a, b))"]),
        ("x = a.amax()", ["x = (a.amin())"]),
        ("x = a if b else c", ["x = a if (not b) else c"]),
        ("x = isinstance(a, int | float)", []),
        ("x: dict[str, int | None] = a", []),
        ("raise ValueError(f'{a + 1}')", []),
        ("logger.info('%s', a + 1)", []),
        ("x = f'{a + 1}'", []),
        ("'''A docstring with 1 < 2.'''", []),
    ],
)
def test_a_line_has_these_mutants(line: str, changed: list[str]) -> None:
    assert sorted(mutant.apply(line) for mutant in mutants_of(line)) == sorted(changed)


def test_a_returned_value_becomes_none_where_the_annotation_has_another_type() -> None:
    source = "def f() -> {}:\n    return a"
    found = {kind: mutants_of(source.format(kind)) for kind in ("int", "None", "bool")}
    assert [m.after for m in found["int"]] == ["None"]
    assert not found["None"]
    assert [m.after for m in found["bool"]] == ["(not a)"]


def test_text_for_people_is_not_changed() -> None:
    assert not mutants_of(
        """
        @register(name=1)
        class C:
            def __repr__(self) -> str:
                return str(1 + 2)
        """
    )


def test_changes_keep_their_place_in_a_file_with_other_alphabets() -> None:
    source = 'name = "größer ≥"; x = a + b\n'
    (mutant,) = mutants_of(source)
    assert mutant.apply(source) == 'name = "größer ≥"; x = (a - b)\n'


def test_lines_are_those_of_the_statement_and_of_the_function_for_a_default() -> None:
    source = """\
    def f(a=True) -> None:
        x = g(
            a and b,
        )
        h = x
    """
    default, both = mutants_of(source)
    assert (default.lines, default.function) == ((2, 5), "f")
    assert both.lines == (2, 4)


def test_each_mutant_compiles_and_differs_from_the_source() -> None:
    source = mutation.__file__
    with open(source) as file:
        text = file.read()
    found = mutation.find("mutants.py", text)
    assert len(found) > 50
    assert len({mutant.key for mutant in found}) == len(found)
    for mutant in found:
        assert ast.dump(ast.parse(mutant.apply(text))) != ast.dump(ast.parse(text))


def test_a_draw_is_spread_over_the_files_and_repeatable() -> None:
    found = {name: mutation.find(name, "x = a + b\n" * lines) for name, lines in (("p", 30), ("q", 10))}
    drawn = mutation.draw(found, 8, seed=0)
    assert [mutant.path for mutant in drawn] == ["p"] * 6 + ["q"] * 2
    assert len({(mutant.path, mutant.start) for mutant in drawn}) == 8
    assert drawn == mutation.draw(found, 8, seed=0)
    assert drawn != mutation.draw(found, 8, seed=1)


SOURCE = """\
from functools import wraps

def checked(function):
    @wraps(function)
    def wrapper(*args):
        return function(*args)
    return wrapper

class Counter:
    @checked
    def above(self, numbers, limit=3):
        return [n for n in numbers if n > limit]

def maker(step):
    def add(n):
        return n + step
    return add

add_two = maker(2)
"""


def test_functions_behave_as_the_changed_source_wherever_they_are_referred_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "module_to_swap.py"
    file.write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("module_to_swap")
    counter = module.Counter()
    assert counter.above([2, 3, 4]) == [4]
    swap(file, SOURCE, SOURCE.replace("n > limit", "n >= limit"))
    assert counter.above([2, 3, 4]) == [3, 4]
    swap(file, SOURCE, SOURCE.replace("n + step", "n - step"))
    assert module.add_two(1) == -1
    assert module.maker(2)(1) == -1
    for changed in (SOURCE.replace("maker(2)", "maker(3)"), SOURCE.replace("n + step", "n + 1")):
        with pytest.raises(CannotSwapError):
            swap(file, SOURCE, changed)
