"""The real swipes, which are not part of the project."""

import os
from pathlib import Path

import pytest

from seq2seq.swipe.traces.reading import read_traces
from seq2seq.swipe.traces.trace import Trace

REAL = Path(os.environ.get("SHARED", "/work/shared")) / "data" / "swipes" / "qwerty_english_800.jsonl"


@pytest.fixture(scope="package")
def real_file() -> Path:
    """The file of real swipes of How-We-Swipe."""
    if not REAL.is_file():
        pytest.skip(f"no real swipes at {REAL}")
    return REAL


@pytest.fixture(scope="package")
def real_swipes(real_file: Path) -> list[Trace]:
    """The real swipes on qwerty."""
    return [trace for _, trace in read_traces(real_file, layout="qwerty")]
