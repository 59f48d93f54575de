"""Frozen dataclasses are changed by their own methods only."""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("t3nsor", "adapters", "third_party", "seq2seq", "benchmarks")


def mutations_of_others(source):
    """Line numbers of calls object.__setattr__(x, ...) with an x other than self."""
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    setters = [call for call in calls if ast.unparse(call.func) == "object.__setattr__"]
    return [call.lineno for call in setters if ast.unparse(call.args[0]) != "self"]


def test_no_function_sets_fields_of_a_frozen_dataclass_from_outside():
    found = {}
    for path in (path for package in PACKAGES for path in (ROOT / package).rglob("*.py")):
        if lines := mutations_of_others(path.read_text()):
            found[str(path.relative_to(ROOT))] = lines
    assert not found


def test_a_mutation_from_outside_is_found():
    assert mutations_of_others("def resolve(config):\n    object.__setattr__(config, 'd', 3)\n") == [2]
    assert mutations_of_others("def __post_init__(self):\n    object.__setattr__(self, 'd', 3)\n") == []
