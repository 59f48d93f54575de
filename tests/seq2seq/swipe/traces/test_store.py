"""The memory-mapped store: what is written is read, bit for bit, and a broken one is refused."""

import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from adapters import CheckpointError
from adapters.validation import ConfigurationError
from seq2seq.swipe.keyboards.layout import layout_from_rows
from seq2seq.swipe.keyboards.layouts import Layouts
from seq2seq.swipe.traces.store import NAMES, POINTS, ROWS, TraceStore, write_store
from seq2seq.swipe.traces.trace import Trace

WIDTHS = st.floats(width=32, allow_nan=False)


@st.composite
def traces(draw):
    """A trace of any finite floats and of any int32 times."""
    count = draw(st.integers(1, 6))
    x, y = (draw(arrays(np.float32, count, elements=WIDTHS)) for _ in range(2))
    t = draw(arrays(np.int32, count, elements=st.integers(0, 2**31 - 1)))
    word = draw(st.text(max_size=3))
    return draw(st.integers(0, 2**40)), Trace(
        word, x, y, np.sort(t), draw(st.sampled_from(["qwerty", "jcuken", "own"]))
    )


def equal(one: Trace, other: Trace) -> bool:
    same = (np.array_equal(a, b) and a.dtype == b.dtype for a, b in zip(one[1:4], other[1:4], strict=True))
    return all(same) and (one.word, one.layout) == (other.word, other.layout)


def some(count=3):
    x = np.arange(4, dtype=np.float32)
    return [
        (7 * i, Trace("ab"[i % 2], x + i, x, x.astype(np.int32), ("qwerty", "dvorak")[i % 2])) for i in range(count)
    ]


@settings(max_examples=60, deadline=None)
@given(st.lists(traces(), min_size=1, max_size=8))
def test_round_trip(given_traces):
    own = layout_from_rows("own", "en", ("ab", "c"))
    with tempfile.TemporaryDirectory() as folder:
        write_store(Path(folder) / "store", iter(given_traces), Layouts(own=own))
        store = TraceStore(Path(folder) / "store")
        assert len(store) == len(given_traces)
        assert all(equal(one, other) for one, (_, other) in zip(store, given_traces, strict=True))
        assert store.row_numbers.tolist() == [row for row, _ in given_traces]
        assert store.words == [trace.word for _, trace in given_traces]
        assert store.layout_names == [trace.layout for _, trace in given_traces]
        assert store.offsets.tolist() == np.cumsum([0, *(len(trace.t) for _, trace in given_traces)]).tolist()
        assert store.layouts.get("own", own) == own


def test_files_are_plain_arrays_that_are_mapped(tmp_path):
    store = write_store(tmp_path / "store", some(1000))
    assert isinstance(store.points, np.memmap)
    points = np.load(tmp_path / "store" / POINTS, allow_pickle=False)
    assert points["x"][-4:].tolist() == [999, 1000, 1001, 1002]
    assert points["t"].dtype == np.int32
    assert points.nbytes == 1000 * 4 * 12


def test_indices(tmp_path):
    store = write_store(tmp_path / "store", some())
    assert equal(store[-1], some()[2][1])
    assert equal(store[np.int64(1)], some()[1][1])
    with pytest.raises(IndexError, match="3 traces; got index 3"):
        store[3]
    with pytest.raises(IndexError):
        store[-4]


def test_a_trace_is_a_copy(tmp_path):
    store = write_store(tmp_path / "store", some())
    store[0].x[:] = 99
    assert store[0].x.tolist() == [0, 1, 2, 3]


def failing():
    yield from some()
    raise RuntimeError("no more")


def test_a_failed_write_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError, match="no more"):
        write_store(tmp_path / "store", failing())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "at least one"),
        ([(0, Trace("a", np.zeros(2), np.zeros(2), np.zeros(2), "qwertyy"))], "did you mean 'qwerty'"),
        ([(3, Trace("a", np.zeros(0), np.zeros(0), np.zeros(0), "qwerty"))], "row 3 must have points"),
    ],
)
def test_writing_is_refused(tmp_path, rows, message):
    with pytest.raises(ConfigurationError, match=message):
        write_store(tmp_path / "store", rows)
    assert list(tmp_path.iterdir()) == []


def test_a_store_is_written_once(tmp_path):
    write_store(tmp_path / "store", some())
    with pytest.raises(CheckpointError, match="new or empty"):
        write_store(tmp_path / "store", some())


def without(name):
    return lambda folder: (folder / name).unlink()


def cut(name):
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-5])


def other_points(folder):
    np.save(folder / POINTS, np.load(folder / POINTS)[:-1])


def other_order(folder):
    rows = np.load(folder / ROWS)
    rows["end"][1] = rows["end"][0]
    np.save(folder / ROWS, rows)


def other_names(folder):
    content = json.loads((folder / NAMES).read_text())
    (folder / NAMES).write_text(json.dumps(content | {"words": ["a"]}))


DAMAGE = {
    "no points": without(POINTS),
    "no rows": without(ROWS),
    "no names": without(NAMES),
    "points cut": cut(POINTS),
    "rows cut": cut(ROWS),
    "names cut": cut(NAMES),
    "points of another store": other_points,
    "a trace without points": other_order,
    "names of another store": other_names,
    "names a list": lambda folder: (folder / NAMES).write_text("[]"),
    "another dtype": lambda folder: np.save(folder / POINTS, np.zeros(12)),
    "pickled": lambda folder: np.save(folder / ROWS, np.array([{}]), allow_pickle=True),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_store_is_refused(tmp_path, damage):
    write_store(tmp_path / "store", some())
    DAMAGE[damage](tmp_path / "store")
    with pytest.raises(ConfigurationError, match="store"):
        TraceStore(tmp_path / "store")
