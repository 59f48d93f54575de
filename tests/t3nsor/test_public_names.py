import ast
import sys
from pathlib import Path

import pytest

import t3nsor as t3


@pytest.mark.parametrize("name", [name for name in t3.__all__ if name != "FORMATS"])
def test_a_public_name_is_documented(name):
    assert getattr(t3, name).__doc__


@pytest.mark.parametrize("path", sorted(Path(t3.__file__).parent.glob("*.py")), ids=lambda path: path.name)
def test_imports_are_torch_and_the_standard_library_only(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        roots = []
        if isinstance(node, ast.Import):
            roots = [alias.name.split(".")[0] for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            roots = [node.module.split(".")[0]]
        assert all(root == "torch" or root in sys.stdlib_module_names for root in roots), roots
