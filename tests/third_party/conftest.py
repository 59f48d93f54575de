"""Base checkpoints of the three forms of T5, written once by transformers itself."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.third_party import tiny


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def run_tiny():
    """Run tests.third_party.tiny with some values in a process of its own, or in several; gives what it ended with.

    ``then`` has the values of a second run in the same processes.
    """
    root = Path(__file__).parents[2]

    def run(processes: int | None = None, then: dict[str, Any] | None = None, **values) -> subprocess.CompletedProcess:
        launcher = (
            [] if processes is None else ["torch.distributed.run", f"--nproc_per_node={processes}", "--standalone"]
        )
        command = [sys.executable, *(["-m", *launcher] if launcher else []), "-m", "tests.third_party.tiny"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)}
        command += [json.dumps(values)] if then is None else [json.dumps(values), json.dumps(then)]
        return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)

    return run


@pytest.fixture(scope="session")
def bases(tmp_path_factory) -> dict[str, Path]:
    """Folders of the base checkpoints by form: relu, gated, mt5; and relu with dropout."""
    folder = tmp_path_factory.mktemp("bases")
    for form in tiny.FORMS:
        tiny.base_model(form).save_pretrained(folder / form)
    tiny.base_model("relu", dropout=0.2).save_pretrained(folder / "dropout")
    return {path.name: path for path in folder.iterdir()}
