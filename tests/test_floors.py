"""The floors of the house: imports go down only, and only heavy or optional things are imported late."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FLOORS = ["t3nsor", "adapters", "third_party", "seq2seq"]
OPTIONAL_OR_HEAVY = {"wandb", "peft", "matplotlib"}
SOURCES = sorted(path for floor in FLOORS for path in (ROOT / floor).rglob("*.py"))


def imported_packages(tree: ast.AST) -> list[tuple[str, ast.stmt]]:
    """The first part of every imported name, with the statement."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name.partition(".")[0], node) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.append((node.module.partition(".")[0], node))
    return found


def upward_imports(source: str, floor: str) -> list[str]:
    """Floors above ``floor`` (or beside the house) that the source imports."""
    above = set(FLOORS[FLOORS.index(floor) + 1 :]) | {"run_seq2seq", "tests", "benchmarks"}
    return sorted(name for name, _ in imported_packages(ast.parse(source)) if name in above)


def late_imports(source: str) -> list[str]:
    """Packages imported inside a function."""
    tree = ast.parse(source)
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    return sorted({name for function in functions for name, _ in imported_packages(function)})


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_down_only(path: Path):
    floor = path.relative_to(ROOT).parts[0]
    assert upward_imports(path.read_text(), floor) == []


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_only_optional_or_heavy_packages_are_imported_late(path: Path):
    assert set(late_imports(path.read_text())) <= OPTIONAL_OR_HEAVY


def test_t3nsor_knows_torch_and_nothing_else():
    allowed = {"torch", "t3nsor", *__import__("sys").stdlib_module_names}
    for path in (ROOT / "t3nsor").rglob("*.py"):
        assert {name for name, _ in imported_packages(ast.parse(path.read_text()))} <= allowed, path


def test_the_checks_see_what_they_guard_against():
    assert upward_imports("import torch\nfrom seq2seq.tasks import TASKS", "adapters") == ["seq2seq"]
    assert late_imports("def f():\n    from adapters import merge") == ["adapters"]
