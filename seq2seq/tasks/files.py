"""Read rows from tsv, csv, jsonl, parquet and json files, one dictionary per row.

- tsv follows GLUE: cells are separated by tabs, and quotation marks have no special meaning. Only a line feed, or a
  carriage return and a line feed, ends a row; any other separator is part of a cell.
- csv is the usual format: cells are separated by commas and may be quoted.
- json is a list of objects, either at the top level or under the key "data".

Cells of tsv and csv files are strings; the other formats keep their types. A tsv or csv row with too few cells has None
for the missing ones; a row with too many has None everywhere, because its cells cannot be assigned to columns.
"""

import csv
import itertools
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet

Row = Mapping[str, Any]
Header = tuple[str, ...] | None


def read_rows(path: str | Path, header: Header = None) -> Iterator[Row]:
    """Yield the rows of a file.

    Args:
        path: the file; its suffix, a key of `READERS`, selects the format.
        header: the column names of a tsv or csv file without a header line.

    Raises:
        ValueError: no such file, an unknown suffix, or content that does not match the suffix.
    """
    path = Path(path).expanduser().absolute()
    if path.suffix not in READERS:
        raise ValueError(f"A data file has one of the suffixes {', '.join(READERS)}; got {path}: convert or rename it.")
    if not path.is_file():
        problem = "a directory" if path.is_dir() else "missing"
        raise ValueError(f"A data file must exist; got {path}, which is {problem}: check the path.")
    try:
        for row in READERS[path.suffix](path, header):
            if not isinstance(row, Mapping):
                raise TypeError(f"expected an object with named columns, found the row {row!r}")
            yield row
    except (ValueError, TypeError, OSError, csv.Error) as error:
        raise ValueError(
            f"A {path.suffix} file holds rows in that format, encoded as UTF-8; got {path}, which cannot be read "
            f"({error}): fix the file or its suffix."
        ) from error


def _read_csv(path: Path, header: Header) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig", newline="\n") as file:
        yield from _rows(csv.reader(file, strict=True), header)


def _read_tsv(path: Path, header: Header) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig", newline="\n") as file:
        lines = (line.removesuffix("\n").removesuffix("\r") for line in file)
        yield from _rows((line.split("\t") for line in lines if line), header)


def _rows(table: Iterator[list[str]], header: Header) -> Iterator[Row]:
    """Yield the rows of a table as dictionaries; without ``header`` its first row has the names."""
    rows = (cells for cells in table if cells)
    names = header or next(rows, [])
    for cells in rows:
        if len(cells) > len(names):
            yield dict.fromkeys(names)
        else:
            yield dict(itertools.zip_longest(names, cells))


def _read_jsonl(path: Path, header: Header) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig") as file:
        yield from (json.loads(line) for line in file if line.strip())


def _read_json(path: Path, header: Header) -> Iterator[Row]:
    content = json.loads(path.read_text(encoding="utf-8-sig"))
    if isinstance(content, dict):
        if not isinstance(content.get("data"), list):
            raise TypeError(f"an object with the keys {', '.join(content)} has no list under 'data'")
        content = content["data"]
    yield from content


def _read_parquet(path: Path, header: Header) -> Iterator[Row]:
    for batch in pyarrow.parquet.ParquetFile(path).iter_batches():
        yield from batch.to_pylist()


READERS: dict[str, Callable[[Path, Header], Iterator[Row]]] = {
    ".tsv": _read_tsv,
    ".csv": _read_csv,
    ".jsonl": _read_jsonl,
    ".json": _read_json,
    ".parquet": _read_parquet,
}
