"""Rows from files, one dictionary per row: tsv, csv, jsonl, parquet, and json (a list of objects, alone or as "data").

A tsv file has GLUE's form: cells end at tabs, and a quotation mark is a letter like any other. A csv file has the usual
form: cells end at commas and may be quoted. Their cells are strings; the other forms keep their types. A table's row
with too few cells has None for the missing ones, one with too many has None for all: which is which cannot be told.
"""

import csv
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet

Row = Mapping[str, Any]
Header = tuple[str, ...] | None


def read_rows(path: str | Path, header: Header = None) -> Iterator[Row]:
    """The rows of a file, one after the other.

    Args:
        path: the file; its suffix, a key of `READERS`, says how it is read.
        header: the column names of a tsv or csv file that has no header line.

    Raises:
        ValueError: no such file, an unknown suffix, or content that is not what the suffix says.
    """
    path = Path(path).expanduser().absolute()
    if path.suffix not in READERS:
        raise ValueError(f"A data file ends in one of {', '.join(READERS)}; {path} was given. Convert or rename it.")
    if not path.is_file():
        given = "a folder" if path.is_dir() else "not there"
        raise ValueError(f"A data file must exist; {path} is {given}. Give the path of a file.")
    try:
        for row in READERS[path.suffix](path, header):
            if not isinstance(row, Mapping):
                raise TypeError(f"a row is {row!r} where named columns should be")
            yield row
    except (ValueError, TypeError, OSError, csv.Error) as error:
        raise ValueError(
            f"A file that ends in {path.suffix} holds rows in that form, in UTF-8; {path} does not ({error}). "
            "Mend the file or its suffix."
        ) from error


def _read_table(path: Path, header: Header, **dialect: Any) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        for row in csv.DictReader(file, fieldnames=header, strict=True, **dialect):
            yield dict.fromkeys(row.keys() - {None}) if None in row else row


def _read_tsv(path: Path, header: Header) -> Iterator[Row]:
    return _read_table(path, header, delimiter="\t", quoting=csv.QUOTE_NONE)


def _read_jsonl(path: Path, header: Header) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig") as file:
        yield from (json.loads(line) for line in file if line.strip())


def _read_json(path: Path, header: Header) -> Iterator[Row]:
    content = json.loads(path.read_text(encoding="utf-8-sig"))
    if isinstance(content, dict):
        if not isinstance(content.get("data"), list):
            raise TypeError(f"an object with the keys {', '.join(content)} has no list 'data'")
        content = content["data"]
    yield from content


def _read_parquet(path: Path, header: Header) -> Iterator[Row]:
    for batch in pyarrow.parquet.ParquetFile(path).iter_batches():
        yield from batch.to_pylist()


READERS: dict[str, Callable[[Path, Header], Iterator[Row]]] = {
    ".tsv": _read_tsv,
    ".csv": _read_table,
    ".jsonl": _read_jsonl,
    ".json": _read_json,
    ".parquet": _read_parquet,
}
