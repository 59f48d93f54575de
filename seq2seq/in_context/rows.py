"""Scores by position and by loop, and R^2 by loop, as a run's folder has them: predictions_<split>_<name>.jsonl."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from seq2seq.in_context.errors import bootstrap_band
from seq2seq.run_folder import read_json_lines

ROWS = ("by_position", "by_loop", "probe")


def with_band(scores: np.ndarray, key: str) -> Iterator[dict[str, float]]:
    """The mean of each column of scores (prompts, columns), called ``key``, and the limits of its bootstrap band."""
    low, high = bootstrap_band(scores)
    for cells in zip(scores.mean(0).tolist(), low.tolist(), high.tolist(), strict=True):
        yield dict(zip((key, "low", "high"), cells, strict=True))


def read_rows(directory: Path, split: str | None, name: str) -> list[dict[str, Any]]:
    """The rows of a split, of one of ``ROWS``; none if the run has not written them."""
    path = directory / f"predictions_{split}_{name}.jsonl"
    return read_json_lines(path) if path.is_file() else []
