"""The layers of the project: imports go down only, without cycles, and only heavy or optional packages late.

A wing is a package of a floor, such as ``adapters/saved``; a module at the root of a floor is a wing by itself. If the
wings are ordered by their imports there is no cycle between them, so that each imports only from wings below it.
Imports for type checking count, as do those inside functions.
"""

import ast
import graphlib
from pathlib import Path

import pytest

from seq2seq.workload import WORKLOADS

ROOT = Path(__file__).resolve().parents[1]
FLOORS = ["t3nsor", "adapters", "third_party", "seq2seq"]
OPTIONAL_OR_HEAVY = (
    *("wandb", "peft", "matplotlib", "torch.utils.tensorboard", "sklearn"),
    *("wordfreq", "starlette", "uvicorn", "onnx", "onnxruntime", "submitit"),
)
SOURCES = sorted(path for floor in FLOORS for path in (ROOT / floor).rglob("*.py"))
BUILT_IN = {name: path.split(".")[1] for name, path in WORKLOADS.items() if isinstance(path, str)}
"""The wing of each workload of the project; they must not import each other."""


def name_of(path: Path) -> str:
    """The dotted name of a module; a package's __init__ has a name of its own, as nobody means it by its modules."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


MODULES = {name_of(path): path for path in SOURCES}


def imported_names(tree: ast.AST, module: str) -> list[tuple[str, ast.stmt]]:
    """Every imported name in full, with the statement; relative imports are resolved against ``module``."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, node) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = module.split(".")[: -node.level] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            found += [(f"{base}.{alias.name}", node) for alias in node.names]
    return found


def imported_modules(source: str, module: str, modules: set[str]) -> set[str]:
    """The modules of the project that a source imports, or of which it imports a name."""
    found = set()
    for name, _ in imported_names(ast.parse(source), module):
        parent = name.rpartition(".")[0]
        candidates = (name, f"{name}.__init__", parent, f"{parent}.__init__")
        found |= {next((candidate for candidate in candidates if candidate in modules), module)}
    return found - {module}


def wing_of(module: str) -> str:
    """adapters.saved.folder -> adapters.saved, adapters.merging -> adapters.merging."""
    parts = module.split(".")
    return module if parts[1] == "__init__" else ".".join(parts[:2])


def cycle(graph: dict[str, set[str]]) -> list[str]:
    """A cycle of a graph {node: what it imports}; empty if there is none."""
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return error.args[1]
    return []


def upward_imports(source: str, floor: str) -> list[str]:
    """Floors above ``floor`` (or outside the house) that the source imports."""
    above = {*FLOORS[FLOORS.index(floor) + 1 :], "run_seq2seq", "tests", "benchmarks"}
    packages = {name.partition(".")[0] for name, _ in imported_names(ast.parse(source), floor)}
    return sorted(packages & above)


def late_imports(source: str) -> list[str]:
    """Names imported inside a function."""
    functions = (n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef))
    return sorted({name for function in functions for name, _ in imported_names(function, "")})


@pytest.fixture(scope="module")
def graph() -> dict[str, set[str]]:
    """The modules of the project, and what each imports."""
    return {module: imported_modules(path.read_text(), module, {*MODULES}) for module, path in MODULES.items()}


@pytest.fixture(scope="module")
def wings(graph) -> dict[str, set[str]]:
    """The wings of the project, and what each imports."""
    found: dict[str, set[str]] = {}
    for module, imported in graph.items():
        found.setdefault(wing_of(module), set()).update(wing_of(other) for other in imported)
    return {wing: others - {wing} for wing, others in found.items()}


@pytest.mark.parametrize("floor", FLOORS)
def test_floors_import_down_only(floor):
    paths = [path for path in SOURCES if path.relative_to(ROOT).parts[0] == floor]
    assert {name_of(path): upward_imports(path.read_text(), floor) for path in paths} == {
        name_of(path): [] for path in paths
    }


def test_no_module_is_in_a_cycle(graph):
    assert cycle(graph) == []


def test_wings_import_down_only(wings):
    assert cycle(wings) == []


def test_workloads_do_not_import_each_other(wings):
    workloads = {f"seq2seq.{name}" for name in BUILT_IN.values()}
    assert {wing: sorted(wings[wing] & workloads - {wing}) for wing in workloads} == {wing: [] for wing in workloads}


def test_only_a_workload_names_itself(wings):
    """The runner, extras, configuration and reports know a workload by the registry alone."""
    workloads = {f"seq2seq.{name}" for name in BUILT_IN.values()}
    assert sorted(wing for wing, imported in wings.items() if imported & workloads) == []


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_only_optional_or_heavy_packages_are_imported_late(path):
    allowed = tuple(f"{package}." for package in OPTIONAL_OR_HEAVY)
    assert [name for name in late_imports(path.read_text()) if not f"{name}.".startswith(allowed)] == []


def test_t3nsor_imports_torch_and_nothing_else():
    allowed = {"torch", "t3nsor", *__import__("sys").stdlib_module_names}
    for module, path in MODULES.items():
        if module.startswith("t3nsor"):
            names = imported_names(ast.parse(path.read_text()), module)
            assert {name.partition(".")[0] for name, _ in names} <= allowed, module


def test_the_checks_see_what_they_guard_against():
    assert upward_imports("import torch\nfrom seq2seq.tasks import TASKS", "adapters") == ["seq2seq"]
    assert late_imports("def f():\n    from adapters import merge") == ["adapters.merge"]
    modules = {"t3nsor.a", "t3nsor.b.c", "t3nsor.b.__init__"}
    for_types = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .b.c import C"
    assert imported_modules(for_types, "t3nsor.a", modules) == {"t3nsor.b.c"}
    assert imported_modules("from ..a import A\nfrom .. import b", "t3nsor.b.c", modules) == {
        "t3nsor.a",
        "t3nsor.b.__init__",
    }
    assert wing_of("adapters.saved.folder") == "adapters.saved"
    assert cycle({"a": {"b"}, "b": {"c"}, "c": {"a"}})
    assert cycle({"a": {"b", "c"}, "b": {"c"}}) == []
