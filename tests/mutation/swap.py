"""Gives the functions of an imported module the code of a changed source, in place.

So a process that has imported everything and collected all tests can be forked for each mutant, and the child is
ready at once. What ran at import, such as constants and defaults, is not changed.
"""

import gc
import sys
from collections import Counter
from collections.abc import Iterator
from inspect import CO_OPTIMIZED
from pathlib import Path
from types import CodeType, FunctionType

Key = tuple[str, int]
"""The qualified name of a function, and how many functions of this name stand before it in the file."""


class CannotSwapError(Exception):
    """The change needs an import: it is not in a function, or changes which outer variables a function uses."""


def swap(file: Path, old: str, new: str) -> None:
    """Changes the functions of the module that was imported from `file`, wherever they are referred to.

    Args:
        file: From which the module was imported.
        old: Its source at the import.
        new: The source to behave as.
    """
    module = next(m for m in list(sys.modules.values()) if getattr(m, "__file__", None) == str(file))
    loader = module.__spec__.loader  # the import hook of jaxtyping adds its checks
    before = dict(_codes(loader.source_to_code(old.encode(), str(file))))
    after = dict(_codes(loader.source_to_code(new.encode(), str(file))))
    places = {(code.co_qualname, code.co_firstlineno): key for key, code in before.items()}
    changed = {key for key, code in before.items() if key not in after or after[key] != code}
    swapped = set()
    for function in [item for item in gc.get_objects() if type(item) is FunctionType]:
        code = function.__code__
        key = places.get((code.co_qualname, code.co_firstlineno))
        if code.co_filename != str(file) or key not in changed or key not in after:
            continue
        if after[key].co_freevars != code.co_freevars:
            raise CannotSwapError(key[0])
        function.__code__ = after[key]
        swapped.add(key[0])
    if not swapped:
        raise CannotSwapError(str(file))
    # A nested function is made by the one around it, which has been changed.
    for name, _ in changed:
        if not any(name == outer or name.startswith(f"{outer}.<locals>") for outer in swapped):
            raise CannotSwapError(name)


def _codes(module: CodeType) -> Iterator[tuple[Key, CodeType]]:
    """The code of all functions in a module, those in functions and classes included."""
    seen = Counter[str]()
    queue = [const for const in module.co_consts if isinstance(const, CodeType)]
    while queue:
        code = queue.pop(0)
        if code.co_flags & CO_OPTIMIZED:  # not the body of a class
            yield (code.co_qualname, seen[code.co_qualname]), code
            seen[code.co_qualname] += 1
        queue += [const for const in code.co_consts if isinstance(const, CodeType)]
