"""The project installed from a wheel: all files come along, and runs start from any directory by name."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import adapters
import t3nsor

ROOT = Path(__file__).resolve().parents[1]
FLOORS = ("t3nsor", "adapters", "third_party", "seq2seq")
MOVED = ("assets", "configs")
"""Folders that a wheel has inside seq2seq."""
SHORT = ["max_steps=2", "max_train_samples=64", "max_validation_samples=8", "max_test_samples=8", "baselines=[]"]
SHORT += ["eval_strategy=no", "load_best_model_at_end=false"]


def files_below(folder: str) -> set[str]:
    """The files of a folder of the project as paths from its root, without what Python and tools leave there."""
    return {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and not {"__pycache__", ".ipynb_checkpoints"} & {*path.parts}
    }


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    """What a command prints, without network; it must succeed."""
    environment = {**os.environ, "PIP_NO_INDEX": "1", "HF_HUB_OFFLINE": "1", **environment}
    command = [sys.executable, *map(str, command)]
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """A wheel, built from a copy so that nothing is left in the project."""
    source, made = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for folder in (*FLOORS, *MOVED):
        shutil.copytree(ROOT / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE", "run_seq2seq.py"):
        shutil.copy(ROOT / name, source)
    run("-m", "pip", "wheel", "-q", ".", "--no-deps", "--no-build-isolation", "-w", made, cwd=source)
    (path,) = made.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def site(wheel, tmp_path_factory) -> Path:
    """A folder into which the wheel was installed."""
    target = tmp_path_factory.mktemp("site")
    run("-m", "pip", "install", "-q", "--no-deps", "--target", target, wheel, cwd=target)
    return target


@pytest.mark.slow
def test_a_wheel_has_the_files_of_the_project(wheel):
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    moved = {f"seq2seq/{name}" for folder in MOVED for name in files_below(folder)}
    assert packed == {"run_seq2seq.py", *moved}.union(*map(files_below, FLOORS))


@pytest.mark.slow
def test_a_wheel_has_the_version_of_the_packages(wheel):
    assert wheel.name.startswith(f"tensorized_adapters-{t3nsor.__version__}-")
    assert adapters.__version__ == t3nsor.__version__


@pytest.mark.slow
def test_an_installed_project_runs_from_any_directory(site, tmp_path):
    path = {"PYTHONPATH": str(site)}
    assert run("-c", "import seq2seq; print(seq2seq.PROJECT)", cwd=tmp_path, **path).strip() == str(site / "seq2seq")
    assert "trainable parameters" in run(site / "bin/seq2seq-run", "quickstart", *SHORT, cwd=tmp_path, **path)
    result = json.loads((tmp_path / "outputs/quickstart/metrics.json").read_text())
    assert result["costs"]["steps_measured"] == 2
