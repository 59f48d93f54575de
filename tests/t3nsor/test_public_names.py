"""The public names of t3nsor, and the imports between its modules."""

import ast
import graphlib
from pathlib import Path

import pytest

import t3nsor as t3

PACKAGE = Path(t3.__file__).parent


def imported_modules(path):
    """The files that a module imports relatively, including imports for type checking only."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level > 0:
            base = path.parents[node.level - 1].joinpath(*(node.module or "").split("."))
            for name in (alias.name for alias in node.names):
                candidates = (base / f"{name}.py", base / name / "__init__.py", base.with_suffix(".py"))
                found.add(next((file for file in candidates if file.exists()), base / "__init__.py"))
    return found - {path}


@pytest.mark.parametrize("name", [name for name in t3.__all__ if name != "FORMATS"])
def test_a_public_name_is_documented(name):
    assert getattr(t3, name).__doc__


def test_there_are_no_import_cycles_not_even_for_type_checking():
    graph = {path: imported_modules(path) for path in PACKAGE.rglob("*.py")}
    assert PACKAGE / "contraction" / "matmul.py" in graph[PACKAGE / "contraction" / "__init__.py"]
    list(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError
