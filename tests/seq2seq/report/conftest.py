"""Fixtures that write run folders as a finished, failed or stopped run leaves them."""

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

CONFIG = {
    "model_name_or_path": "backbone",
    "dtype": "float32",
    "task_name": "rte",
    "max_train_samples": None,
    "adapter": [{"kind": "tt_lora", "rank": 4, "dropout": 0.0}],
    "learning_rate": 0.001,
    "seed": 0,
}

LAYERS = {
    "encoder 0": {"parameters": 4 * 2**20, "gradients": 2**18, "optimizer": 2**19, "activations": 2**21},
    "decoder 0": {"parameters": 6 * 2**20, "gradients": 0, "optimizer": 0, "activations": None},
}


def result_of(
    config: dict[str, Any], metrics: dict[str, float], parameters: int, scale: float = 1.0, task: str | None = None
) -> dict[str, Any]:
    """The content of metrics.json for a run on a backbone with a million parameters."""
    return {
        "experiment_name": config["experiment_name"],
        "task": task or config["task_name"] or "mixture",
        "model": config["model_name_or_path"],
        "adapter": config["adapter"],
        "metrics": {"validation": metrics, "test": metrics},
        "parameters": {"trainable_parameters": parameters, "base_parameters": 10**6, "share": parameters / 10**6},
        "adapter_bytes": 4 * parameters,
        "merge_difference": None,
        "costs": {
            "step_seconds_median": 0.1 * scale,
            "tokens_per_second": 1000.0,
            "peak_memory_bytes": int(2**28 * scale),
            "memory_by_layer": LAYERS,
        },
        "baselines": {},
    }


def write_run_folder(
    root: Path,
    name: str,
    value: float | None = None,
    parameters: int = 1000,
    scale: float = 1.0,
    metrics: dict[str, float] | None = None,
    failure: str | None = None,
    metric: str = "accuracy",
    constant: bool = False,
    task: str | None = None,
    **changes: Any,
) -> Path:
    """Write the folder of a run below ``root``; without ``value`` and ``metrics`` the run is unfinished.

    ``value`` is that of ``metric``, ``constant`` whether all answers are equal, ``task`` what metrics.json calls the
    task, ``changes`` are keys of the configuration.
    """
    folder = root / name
    folder.mkdir(parents=True)
    config = {**CONFIG, **changes, "experiment_name": folder.name, "output_root": str(folder.parent)}
    (folder / "config.json").write_text(json.dumps(config))
    if value is not None:
        metrics = {metric: value, "average_metrics": value, "constant_predictions": float(constant), "invalid": 0.0}
    if metrics is not None:
        (folder / "metrics.json").write_text(json.dumps(result_of(config, metrics, parameters, scale, task)))
        average = metrics["average_metrics"]
        history = [{"step": step, "eval_average_metrics": average * step / 20} for step in (10, 20)]
        (folder / "history.json").write_text(json.dumps([{"step": 1, "loss": 2.0}, *history]))
    if failure is not None:
        (folder / "failure.json").write_text(json.dumps({"sentence": failure, "time": "2026-01-01T00:00:00+00:00"}))
    return folder


def assert_fits(tables: str, folder: Path) -> None:
    """Set LaTeX tables, if there is a pdflatex here: no error, nothing wider than a line."""
    if shutil.which("pdflatex") is None:
        return
    page = rf"\documentclass{{article}}\usepackage{{booktabs}}\begin{{document}}{tables}\end{{document}}"
    (folder / "page.tex").write_text(page, encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "page.tex"]
    done = subprocess.run(command, cwd=folder, capture_output=True, check=False)
    log = done.stdout.decode("utf-8", "replace")
    assert done.returncode == 0, log
    assert not re.findall(r"Overfull \\hbox.*", log)


@pytest.fixture
def write_run(tmp_path: Path) -> Callable[..., Path]:
    """A function that writes a run folder below tmp_path/outputs."""
    return partial(write_run_folder, tmp_path / "outputs")


@pytest.fixture(autouse=True)
def blank_pictures():
    """None: the pictures of reports are complete."""
