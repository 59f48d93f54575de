"""Executes the notebooks and writes their outputs into them: python notebooks/execute.py [name ...]

Outputs are committed, so that a notebook can be read without running it. Progress bars and warnings do not belong
there: a notebook that prints some is refused.
"""

import os
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

NOTEBOOKS = Path(__file__).parent
KNOWN_WARNINGS = ("IProgress not found", "`is_gradient_checkpointing` is deprecated")
"""Of tqdm without widgets, and of PEFT with a newer transformers: they say nothing about the notebooks."""


def unwanted(notebook: nbformat.NotebookNode) -> list[str]:
    """What an output should not contain: stderr, widgets, errors, paths of this machine."""
    found = []
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            text = output.get("text", "") + str(output.get("data", {}).get("text/plain", ""))
            if output.output_type == "error" or output.get("name") == "stderr":
                found.append(f"{cell.id}: {text or output.get('evalue')}")
            elif "application/vnd.jupyter.widget-view+json" in output.get("data", {}):
                found.append(f"{cell.id}: a widget")
            elif str(NOTEBOOKS.resolve().parent) in text or "it/s" in text:
                found.append(f"{cell.id}: {text}")
    return found


def execute(path: Path) -> None:
    """Execute a notebook and save it, without the times at which its cells ran."""
    notebook = nbformat.read(path, as_version=4)
    os.environ["PYTHONWARNINGS"] = ",".join(f"ignore:{warning}" for warning in KNOWN_WARNINGS)
    folder = {"metadata": {"path": str(NOTEBOOKS)}}
    NotebookClient(notebook, timeout=600, kernel_name="python3", record_timing=False, resources=folder).execute()
    notebook.metadata["language_info"] = {"name": "python"}
    if found := unwanted(notebook):
        sys.exit(f"The outputs of {path.name} would have progress bars, warnings, errors or local paths: {found}")
    nbformat.write(notebook, path)


if __name__ == "__main__":
    names = sys.argv[1:] or sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb"))
    for name in names:
        execute(NOTEBOOKS / f"{name}.ipynb")
        print(f"{name}.ipynb")
