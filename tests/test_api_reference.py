"""The API reference is made from the docstrings, without network, and has every public name."""

import importlib
import importlib.util
import os
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted((ROOT / "docs" / "reference").glob("*.md"))
ENTRIES = [name for page in PAGES for name in re.findall(r"^::: (\S+)$", page.read_text(), re.MULTILINE)]


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The documentation as a site, built so that a reference without a target is an error."""
    if importlib.util.find_spec("mkdocs") is None:
        pytest.skip("mkdocs is not installed: pip install -e '.[docs]'")
    directory = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(directory)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return directory


def definition_of(module: str, name: str) -> str:
    """Where a name of a module is defined; a function may share its name with the module of its package."""
    thing = getattr(importlib.import_module(module), name)
    return f"{thing.__module__}.{thing.__qualname__}" if hasattr(thing, "__qualname__") else f"{module}.{name}"


@pytest.mark.parametrize("entry", ENTRIES)
def test_a_page_names_what_exists(entry):
    assert pkgutil.resolve_name(entry) is not None


def test_every_floor_has_a_page():
    assert {entry.split(".")[0] for entry in ENTRIES} == {"t3nsor", "adapters", "third_party", "seq2seq"}


@pytest.mark.slow
def test_every_public_name_has_an_entry(site):
    html = "".join(page.read_text(encoding="utf-8") for page in (site / "reference").rglob("index.html"))
    shown = set(re.findall(r'id="([\w.]+)"', html))
    modules = [entry for entry in ENTRIES if hasattr(pkgutil.resolve_name(entry), "__all__")]
    public = [(module, name) for module in modules for name in pkgutil.resolve_name(module).__all__]
    missing = [name for module, name in public if not {f"{module}.{name}", definition_of(module, name)} & shown]
    assert {*missing} <= {"__version__"}
    assert {*ENTRIES} <= shown
    assert len(public) > 100


@pytest.mark.slow
def test_the_pages_of_the_documentation_are_in_the_site(site):
    pages = {page.relative_to(ROOT / "docs").with_suffix("") for page in (ROOT / "docs").rglob("*.md")}
    paths = {page.parent if page.name == "README" else page for page in pages}
    assert [path for path in paths if not (site / path / "index.html").is_file()] == []
