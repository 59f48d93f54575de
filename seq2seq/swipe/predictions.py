"""Predictions on disk: one jsonl per run and split, beside the configuration that they were made with.

    outputs/swipe_qwerty/config.json               the run's full configuration, or that of an ensemble
    outputs/swipe_qwerty/predictions_test.jsonl    {"index": 7, "word": "hello", "layout": "qwerty",
                                                    "candidates": [["hello", -0.1], ["hells", -3.2]]}

A row keeps the number that it has in the original data set, so that parts of a split, which several machines predicted
with the same configuration, merge into one table. What identifies a table is the digest of its configuration, without
the keys on which results do not depend, and its split.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import FiniteFloat, NonNegativeInt, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from adapters import ConfigurationError
from seq2seq.errors import refusing
from seq2seq.run_folder import EXTENDING_KEYS, TRACKING_KEYS, write_json, write_text
from seq2seq.swipe.metrics import Row, check_rows

PREFIX = "predictions_"


class _Line(TypedDict):
    """A line of the file; other keys are ignored."""

    index: NonNegativeInt
    word: str
    layout: str
    candidates: list[tuple[str, FiniteFloat]]


_LINE = TypeAdapter(_Line)


@dataclass(frozen=True)
class Predictions:
    """The predictions of a run for a split.

    Args:
        name: of the run's folder; that of the first if there are several.
        split: what follows "predictions_" in the file's name, such as "test".
        configuration: the run's config.json.
        rows: sorted by index.
        paths: the files.
    """

    name: str
    split: str
    configuration: Mapping[str, Any]
    rows: Sequence[Row]
    paths: tuple[Path, ...] = ()

    @property
    def key(self) -> str:
        """The digest of the configuration, 12 hexadecimal digits."""
        free = {*EXTENDING_KEYS, *TRACKING_KEYS}
        kept = {key: value for key, value in self.configuration.items() if key not in free}
        return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:12]


def read_predictions(paths: Sequence[Path]) -> list[Predictions]:
    """The predictions of run folders, or of single files in or below them, merged and sorted by name and split.

    Raises:
        ConfigurationError: there are none, a file is malformed or has no configuration beside it, or files of the
            same configuration and split contradict each other.
    """
    files = [file for path in paths for file in _files(path)]
    return merged([_read(file) for file in dict.fromkeys(file.resolve() for file in files)])


def merged(tables: Sequence[Predictions]) -> list[Predictions]:
    """One table for each configuration and split, whatever the order of its parts.

    Raises:
        ConfigurationError: two parts have different predictions of the same row.
    """
    groups: dict[tuple[str, str], list[Predictions]] = {}
    for table in tables:
        groups.setdefault((table.key, table.split), []).append(table)
    whole = [_merged(parts) for parts in groups.values()]
    return sorted(whole, key=lambda table: (table.name, table.split, table.key))


def write_predictions(folder: Path, split: str, configuration: Mapping[str, Any], rows: Sequence[Row]) -> Path:
    """Write a table and its configuration; returns the file.

    Raises:
        ConfigurationError: the folder has another configuration, or cannot be written to; or a row is malformed.
    """
    check_rows(rows)
    config, file = folder / "config.json", folder / f"{PREFIX}{split}.jsonl"
    with refusing("output", folder):
        folder.mkdir(parents=True, exist_ok=True)
        if config.exists() and json.loads(config.read_text(encoding="utf-8")) != configuration:
            raise ConfigurationError(
                f"Predictions are written beside the configuration that they were made with; got {folder}, which has "
                "another one: choose another folder."
            )
        write_json(config, configuration)
        lines = [json.dumps(dict(row), ensure_ascii=False, allow_nan=False) for row in _by_index(rows)]
        write_text(file, "\n".join(lines) + "\n")
    return file


def _files(path: Path) -> list[Path]:
    files = sorted(path.glob(f"{PREFIX}*.jsonl")) if path.is_dir() else [path] if path.is_file() else []
    if not files:
        found = f"no {PREFIX}*.jsonl in it" if path.is_dir() else "no such file"
        raise ConfigurationError(
            f"Predictions are read from run folders or files of theirs; got {path}, {found}: check the path, "
            "or let the run predict."
        )
    return files


def _read(file: Path) -> Predictions:
    folders = (file.parent, file.parent.parent)  # the predict command writes into a folder of the run's
    config = next((folder / "config.json" for folder in folders if (folder / "config.json").is_file()), None)
    if config is None:
        raise ConfigurationError(
            f"Predictions lie beside the config.json that they were made with; got {file} without one: keep the run's "
            "folder together."
        )
    with refusing("predictions", config):
        configuration = json.loads(config.read_text(encoding="utf-8"))
        if not isinstance(configuration, dict):
            raise ValueError("it is not an object of keys")
    rows: list[Row] = []
    with refusing("predictions", file), file.open(encoding="utf-8", newline="\n") as text:
        lines = list(text)
    for number, line in enumerate(lines, 1):
        try:
            rows.append(_LINE.validate_json(line, strict=True))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise ConfigurationError(
                f"A file of predictions has an object of index, word, layout and candidates on each line; got line "
                f"{number} of {file} ({f'{where}: ' if where else ''}{first['msg']}): let the run predict again."
            ) from error
    try:
        check_rows(rows)
    except ConfigurationError as error:
        raise ConfigurationError(f"{file}: {error}") from error
    return Predictions(config.parent.name, file.stem.removeprefix(PREFIX), configuration, _by_index(rows), (file,))


def _merged(parts: Sequence[Predictions]) -> Predictions:
    rows: dict[int, tuple[Row, Predictions]] = {}
    for part in parts:
        for row in part.rows:
            earlier, its_part = rows.setdefault(row["index"], (row, part))
            if earlier != row:
                raise ConfigurationError(
                    f"Files of the same configuration and split have the same prediction of a row; got two of row "
                    f"{row['index']}, in {_named(its_part)} and {_named(part)}: leave one out, or give the "
                    "runs names of their own."
                )
    first = min(parts, key=lambda part: (part.name, part.paths))
    return replace(
        first,
        rows=_by_index([row for row, _ in rows.values()]),
        paths=tuple(sorted(path for part in parts for path in part.paths)),
    )


def _by_index(rows: Sequence[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: row["index"])


def _named(table: Predictions) -> str:
    return ", ".join(map(str, table.paths)) or table.name
