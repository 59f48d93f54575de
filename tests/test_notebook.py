"""The notebooks run from the first cell to the last and print the results that they claim, committed with them."""

import importlib.util
import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"
SPEC = importlib.util.spec_from_file_location("execute", NOTEBOOKS / "execute.py")
execute = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(execute)
EXPECTED = {
    "quickstart": ["base restored bit for bit:    True", "reloaded to identical logits: True"],
    "formats": ["equal losses before the first step: True"],
    "peft_tuner": ["reloaded to identical logits: True", "merged to equal logits: True", "same answers: True"],
    "looped": ["loops trained: 8, loops shown: 24"],
    "swipe": ["traces of the test: 200, words of them that were trained on: 0"],
}
SHORTENED = {
    "quickstart": ("range(75)", "range(2)"),
    "formats": ("steps=40", "steps=1"),
    "peft_tuner": ("range(75)", "range(2)"),
    "looped": ("steps = 1200", "steps = 2"),
    "swipe": ("steps = 600", "steps = 2"),
}
"""Fewer training steps for the test: the text in a cell, and what replaces it."""


def test_every_notebook_has_expected_results():
    assert {path.stem for path in NOTEBOOKS.glob("*.ipynb")} == set(EXPECTED)


def printed(notebook):
    """All that the cells print."""
    return "".join(output.get("text", "") for cell in code_cells(notebook) for output in cell.outputs)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


@pytest.mark.parametrize("name", EXPECTED)
def test_outputs_are_committed_without_bars_and_warnings(name):
    notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
    assert [cell.execution_count for cell in code_cells(notebook)] == list(range(1, len(code_cells(notebook)) + 1))
    assert execute.unwanted(notebook) == []
    for line in EXPECTED[name]:
        assert line in printed(notebook)


@pytest.mark.parametrize("name", ["quickstart", "peft_tuner"])
def test_answers_are_shown(name):
    text = printed(nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4))
    assert re.search(r"expected (true|false), answered (true|false)\n", text)
    right, rows = map(int, re.findall(r"(\d+) of (\d+)", text)[-1])
    assert right > 0.6 * rows


BAD_OUTPUTS = {
    "a warning": {"output_type": "stream", "name": "stderr", "text": "UserWarning: no"},
    "a bar": {"output_type": "stream", "name": "stdout", "text": " 50%|##   | 1/2 [00:01<00:01, 1.0it/s]"},
    "an error": {"output_type": "error", "ename": "ValueError", "evalue": "no", "traceback": []},
    "a local path": {"output_type": "stream", "name": "stdout", "text": str(NOTEBOOKS)},
    "a widget": {
        "output_type": "display_data",
        "metadata": {},
        "data": {"application/vnd.jupyter.widget-view+json": {"model_id": "1"}, "text/plain": "HBox()"},
    },
}


@pytest.mark.parametrize("case", BAD_OUTPUTS)
def test_what_a_committed_output_must_not_contain_is_found(case):
    cell = nbformat.v4.new_code_cell("1", outputs=[nbformat.from_dict(BAD_OUTPUTS[case])])
    assert len(execute.unwanted(nbformat.v4.new_notebook(cells=[cell]))) == 1


@pytest.fixture(scope="module")
def executed():
    """The notebooks, run one after the other in one kernel, which imports everything once; no name outlives its own."""
    notebooks, cells = {}, []
    for name, (long, short) in SHORTENED.items():
        notebooks[name] = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
        (cell,) = [cell for cell in notebooks[name].cells if long in cell.source]
        cell.source = cell.source.replace(long, short)
        for cell in code_cells(notebooks[name]):
            cell.id = f"{name}-{cell.id}"
        cells += [nbformat.v4.new_code_cell("%reset -f"), *code_cells(notebooks[name])]
    folder = {"metadata": {"path": str(NOTEBOOKS)}}
    together = nbformat.v4.new_notebook(cells=cells)
    NotebookClient(together, timeout=300, kernel_name="python3", resources=folder).execute()
    return notebooks


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPECTED)
@pytest.mark.filterwarnings("ignore:Jupyter is migrating:DeprecationWarning")  # raised by jupyter_core at start-up
def test_the_notebook_runs(name, executed):
    for line in EXPECTED[name]:
        assert line in printed(executed[name])
