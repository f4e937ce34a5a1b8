"""The line of a page on which a place of its config is written."""

import ast
import re

_PLACE = re.compile(r"[a-z_]\w*(\.\w+|\[\d+\])*(?=:)")


def place_of(message: str) -> str:
    """The place that an error message begins with, such as `trainer.max_steps`; empty if it begins with none."""
    found = _PLACE.match(message)
    return found[0] if found else ""


def line_of(tree: ast.Module, message: str) -> str:
    """`:line` of what an error message is about, if the page writes it; else an empty text."""
    _, line = deepest_line(tree, message)
    return f":{line}" if line else ""


def deepest_line(tree: ast.Module, message: str) -> tuple[int, int]:
    """How many keys of the place in an error message a page writes out, and the line of the last of them.

    The key that the message quotes first, as in "unknown argument 'batch_sise'", counts as the last key of the place.
    """
    place = place_of(message)
    if not place:
        return 0, 0
    steps: list[str | int] = [int(s) if s.isdecimal() else s for s in re.findall(r"\w+", place)]
    steps += message.split("'")[1:2]
    depth, line = 0, 0
    found = _assigned(tree, str(steps[0]))
    while found is not None:
        value, line = found
        depth += 1
        found = _item(tree, value, steps[depth]) if depth < len(steps) else None
    return depth, line


def _assigned(tree: ast.Module, name: str) -> tuple[ast.expr | None, int] | None:
    """The value that a page gives to a name last, and its line."""
    found = None
    for node in ast.walk(tree):
        targets = node.targets if isinstance(node, ast.Assign) else []
        targets = [node.target] if isinstance(node, ast.AnnAssign) else targets
        names = [n.id for target in targets for n in ast.walk(target) if isinstance(n, ast.Name)]
        if isinstance(node, ast.Assign | ast.AnnAssign) and name in names:
            found = (node.value, node.lineno)
    return found


def _item(
    tree: ast.Module, value: ast.expr | None, step: str | int, seen: frozenset[str] = frozenset()
) -> tuple[ast.expr | None, int] | None:
    """The value that an expression of a page has at a key or an index, and its line."""
    if isinstance(value, ast.Name) and value.id not in seen:
        assigned = _assigned(tree, value.id)
        return None if assigned is None else _item(tree, assigned[0], step, seen | {value.id})
    if isinstance(value, ast.List | ast.Tuple) and isinstance(step, int) and step < len(value.elts):
        return value.elts[step], value.elts[step].lineno
    if isinstance(value, ast.Dict):
        for key, item in zip(value.keys, value.values, strict=True):
            if isinstance(key, ast.Constant) and key.value == step:
                return item, key.lineno
    if isinstance(value, ast.Call):
        for keyword in value.keywords:
            if keyword.arg == step:
                return keyword.value, keyword.lineno
        others = [*value.args, *(keyword.value for keyword in value.keywords if keyword.arg is None)]
        found = (_item(tree, other, step, seen) for other in reversed(others))  # the last one wins
        return next((item for item in found if item is not None), None)
    return None
