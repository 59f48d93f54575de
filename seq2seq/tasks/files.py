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
import reprlib
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.parquet

Row = Mapping[str, Any]

csv.field_size_limit(2**31 - 1)  # by default 131,072 characters; a C long has 32 bits on Windows


class Header(NamedTuple):
    """The column names of tsv and csv files that may have no header line.

    The first line is a header line if it has all columns of ``needed``, in any case, and a row if not.
    """

    names: tuple[str, ...]
    needed: Collection[str]


def read_rows(path: str | Path, header: Header | None = None) -> Iterator[Row]:
    """Yield the rows of a file.

    Args:
        path: the file; its suffix, a key of `READERS`, selects the format.
        header: the column names of a tsv or csv file without a header line; by default the first line has them.

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
                raise TypeError(f"expected an object with named columns, found the row {reprlib.repr(row)}")
            yield row
    except (ValueError, TypeError, OSError, RecursionError, csv.Error) as error:
        raise ValueError(
            f"A {path.suffix} file holds rows in that format, encoded as UTF-8; got {path}, which cannot be read "
            f"({error}): fix the file or its suffix."
        ) from error


def _read_csv(path: Path, header: Header | None) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig", newline="\n") as file:
        table = csv.reader(file, strict=True)
        try:
            yield from _rows(table, header)
        except csv.Error as error:
            raise ValueError(f"line {table.line_num}: {error}") from None


def _read_tsv(path: Path, header: Header | None) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig", newline="\n") as file:
        lines = (line.removesuffix("\n").removesuffix("\r") for line in file)
        yield from _rows((line.split("\t") for line in lines if line), header)


def _rows(table: Iterator[list[str]], header: Header | None) -> Iterator[Row]:
    """Yield the rows of a table as dictionaries."""
    rows = (cells for cells in table if cells)
    names = first = next(rows, [])
    if header is not None:
        names = [name.casefold() if name.casefold() in header.needed else name for name in first]
        if not set(header.needed) <= set(names):
            names, rows = header.names, itertools.chain([first] if first else [], rows)
    repeated = next((name for name, count in Counter(names).items() if name and count > 1), None)
    if repeated is not None:
        raise ValueError(f"the header line has the column {repeated!r} more than once")
    for cells in rows:
        if len(cells) > len(names):
            yield dict.fromkeys(names)
        else:
            yield dict(itertools.zip_longest(names, cells))


def _read_jsonl(path: Path, header: Header | None) -> Iterator[Row]:
    bad: dict[int, Exception] = {}
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise TypeError(f"expected an object with named columns, found the row {reprlib.repr(row)}")
            except (ValueError, TypeError, RecursionError) as error:
                bad[number] = error
            else:
                if not bad:
                    yield row
    if bad:
        first, error = next(iter(bad.items()))
        problem = f"{error.msg} at character {error.pos + 1}" if isinstance(error, json.JSONDecodeError) else error
        others = f"; in all {len(bad)} such lines, {list_rows(list(bad), 'line')}" if len(bad) > 1 else ""
        raise ValueError(f"line {first}: {problem}{others}")


def _read_json(path: Path, header: Header | None) -> Iterator[Row]:
    content = json.loads(path.read_text(encoding="utf-8-sig"))
    if isinstance(content, dict):
        if not isinstance(content.get("data"), list):
            raise TypeError(f"an object with the keys {', '.join(content)} has no list under 'data'")
        content = content["data"]
    yield from content


def _read_parquet(path: Path, header: Header | None) -> Iterator[Row]:
    for batch in pyarrow.parquet.ParquetFile(path).iter_batches():
        yield from batch.to_pylist()


def list_rows(numbers: Sequence[int], noun: str = "row") -> str:
    """The first few of these numbers, and how many there are more: "rows 3, 17 and 80", "row 3"."""
    shown = [str(number) for number in numbers[:SHOWN]]
    if len(numbers) > SHOWN:
        return f"{noun}s {', '.join(shown)} and {len(numbers) - SHOWN} more"
    return f"{noun} {shown[0]}" if len(shown) == 1 else f"{noun}s {', '.join(shown[:-1])} and {shown[-1]}"


SHOWN = 5
"""The largest number of rows that a message lists."""

READERS: dict[str, Callable[[Path, Header | None], Iterator[Row]]] = {
    ".tsv": _read_tsv,
    ".csv": _read_csv,
    ".jsonl": _read_jsonl,
    ".json": _read_json,
    ".parquet": _read_parquet,
}
