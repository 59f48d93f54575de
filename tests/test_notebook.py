"""The notebooks run from the first cell to the last and print the results that they claim."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"
EXPECTED = {
    "quickstart": ["base restored bit for bit:    True", "reloaded to identical logits: True"],
    "formats": ["equal losses before the first step: True"],
}
SHORTENED = {"quickstart": ("range(30)", "range(10)"), "formats": ("steps=40", "steps=3")}
"""Fewer training steps for the test: the text in a cell, and what replaces it."""


def test_every_notebook_has_expected_results():
    assert {path.stem for path in NOTEBOOKS.glob("*.ipynb")} == set(EXPECTED)


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPECTED)
@pytest.mark.filterwarnings("ignore:Jupyter is migrating:DeprecationWarning")  # raised by jupyter_core at start-up
def test_the_notebook_runs(name):
    notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
    long, short = SHORTENED[name]
    (cell,) = [cell for cell in notebook.cells if long in cell.source]
    cell.source = cell.source.replace(long, short)
    folder = {"metadata": {"path": str(NOTEBOOKS)}}
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources=folder).execute()
    printed = "".join(
        output.get("text", "") for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs
    )
    for line in EXPECTED[name]:
        assert line in printed
