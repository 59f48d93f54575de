"""The notebooks run from their first cell to their last, and show what they promise."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"
SHOWN = {
    "quickstart": ["base restored bit for bit:    True", "reloaded to identical logits: True"],
    "formats": ["equal losses before the first step: True"],
}


def test_every_notebook_is_held_to_something():
    assert {path.stem for path in NOTEBOOKS.glob("*.ipynb")} == set(SHOWN)


@pytest.mark.slow
@pytest.mark.parametrize("name", SHOWN)
@pytest.mark.filterwarnings("ignore:Jupyter is migrating:DeprecationWarning")  # in jupyter_core's own start-up
def test_the_notebook_runs(name):
    notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
    folder = {"metadata": {"path": str(NOTEBOOKS)}}
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources=folder).execute()
    printed = "".join(
        output.get("text", "") for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs
    )
    for sentence in SHOWN[name]:
        assert sentence in printed
