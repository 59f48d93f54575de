"""Traces on disk: the points of all of them as one memory-mapped array, and where each begins.

    points.npy   (all points,)  x, y float32, pixels of the layout; t int32, milliseconds
    rows.npy     (traces,)      end int64, behind its last point; row int64, its index in the original data set;
                                word, layout int32, places in
    names.json                  the distinct words and the layouts

A trace is read when it is indexed, so that a data set larger than memory costs what its rows need: 24 bytes each.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from adapters.saved.folder import create_folder
from adapters.validation import ConfigurationError, refuse
from seq2seq.swipe.keyboards.layout import Layout, layout_from_json, layout_to_json
from seq2seq.swipe.keyboards.layouts import Layouts
from seq2seq.swipe.traces.trace import Trace

POINT = np.dtype([("x", "<f4"), ("y", "<f4"), ("t", "<i4")])
ROW = np.dtype([("end", "<i8"), ("row", "<i8"), ("word", "<i4"), ("layout", "<i4")])
POINTS, ROWS, NAMES = "points.npy", "rows.npy", "names.json"
WHERE = "the data set of traces"


class TraceStore(Sequence[Trace]):
    """The traces of a folder, read-only.

    Args:
        folder: what ``write_store`` wrote.

    Raises:
        ConfigurationError: its files are missing or do not fit each other.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        try:
            self.points = np.load(self.folder / POINTS, mmap_mode="r", allow_pickle=False)
            self._rows = np.load(self.folder / ROWS, mmap_mode="r", allow_pickle=False)
            names = json.loads((self.folder / NAMES).read_text(encoding="utf-8"))
            self._words, layouts = names["words"], names["layouts"]
        except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
            given = f"{self.folder} ({error or type(error).__name__})"
            raise ConfigurationError(f"A data set of traces must be readable; got {given}: write it again.") from error
        self.layouts = Layouts()
        for content in layouts:
            layout = layout_from_json(content, f"a layout in {self.folder / NAMES}")
            self.layouts[layout.name] = layout
        self._layouts = list(self.layouts)
        self._check()

    def _check(self) -> None:
        dtypes = (self.points.dtype, self._rows.dtype)
        fits = dtypes == (POINT, ROW) and self.points.ndim == self._rows.ndim == 1 and len(self._rows) > 0
        if fits:
            ends, words, layouts = self._rows["end"], self._rows["word"], self._rows["layout"]
            fits = ends[-1] == len(self.points) and ends[0] > 0 and (np.diff(ends) > 0).all()
            fits &= words.min() >= 0 and words.max() < len(self._words)
            fits &= layouts.min() >= 0 and layouts.max() < len(self._layouts)
        if not fits:
            refuse("folder", "must hold files that fit each other", str(self.folder), "write it again", WHERE)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Trace:
        if not -len(self) <= index < len(self):
            raise IndexError(f"There are {len(self)} traces; got index {index}.")
        index = int(index) % len(self)
        end, _, word, layout = self._rows[index].item()
        points = self.points[self._rows["end"][index - 1] if index else 0 : end]
        x, y, t = (np.ascontiguousarray(points[name]) for name in POINT.names)
        return Trace(self._words[word], x, y, t, self._layouts[layout])

    @property
    def offsets(self) -> np.ndarray:
        """Where the points of each trace begin, and the end: (1 + traces,) int64."""
        return np.concatenate([[0], self._rows["end"]])

    @property
    def row_numbers(self) -> np.ndarray:
        """The index of each trace's row in the original data set: (traces,) int64."""
        return np.asarray(self._rows["row"])

    @property
    def words(self) -> list[str]:
        """The word of each trace, without reading points."""
        return [self._words[word] for word in self._rows["word"].tolist()]

    @property
    def layout_names(self) -> list[str]:
        """The layout of each trace, without reading points."""
        return [self._layouts[layout] for layout in self._rows["layout"].tolist()]


def write_store(
    folder: str | Path, traces: Iterable[tuple[int, Trace]], layouts: Mapping[str, Layout] | None = None
) -> TraceStore:
    """Write traces, which may be more than fit into memory; the folder is complete or absent.

    Args:
        folder: a new or empty one.
        traces: each with the index of its row in the original data set, as ``read_traces`` yields them.
        layouts: where the layouts of the traces are looked up; shipped ones by default.

    Raises:
        ConfigurationError: there are no traces, one has no points, or its layout is unknown.
        adapters.CheckpointError: ``folder`` is neither new nor empty.
    """
    layouts = Layouts(layouts or {})
    create_folder(Path(folder), lambda partial: _write(partial, traces, layouts))
    return TraceStore(folder)


def _write(folder: Path, traces: Iterable[tuple[int, Trace]], layouts: Layouts) -> None:
    words: dict[str, int] = {}
    names: dict[str, int] = {}
    with (folder / POINTS).open("wb") as points, (folder / ROWS).open("wb") as rows:
        _write_header(points, POINT, 0)
        _write_header(rows, ROW, 0)
        end = count = 0
        for row, trace in traces:
            block = np.empty(len(trace.t), POINT)
            if not len(block):
                refuse("t", "must have points", "none", "drop the row", f"row {row}")
            block["x"], block["y"], block["t"] = trace.x, trace.y, trace.t
            end, count = end + len(block), count + 1
            word = words.setdefault(trace.word, len(words))
            layout = names.setdefault(layouts[trace.layout].name, len(names))
            points.write(block.tobytes())
            rows.write(np.array((end, row, word, layout), ROW).tobytes())
        if not count:
            refuse("traces", "must have at least one", "none", "check the source and its filters", WHERE)
        _write_header(points, POINT, end)
        _write_header(rows, ROW, count)
    content = {"words": list(words), "layouts": [layout_to_json(layouts[name]) for name in names]}
    (folder / NAMES).write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


def _write_header(file: BinaryIO, dtype: np.dtype, length: int) -> None:
    """Write the header of a .npy file at its beginning; NumPy leaves room for the first dimension to grow."""
    file.seek(0)
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (length,)}
    np.lib.format.write_array_header_1_0(file, header)
