"""Experiments: tasks, data, metrics, arguments, training, tracking, report."""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent

PROJECT = _PACKAGE if (_PACKAGE / "assets").is_dir() else _PACKAGE.parent
"""The folder that holds assets/ and configs/: the project's, or this package where it is installed from a wheel."""

SPLITS = ("train", "validation", "test")
"""The splits of a data set, in the order in which a run uses them."""
