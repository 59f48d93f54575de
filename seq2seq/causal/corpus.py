"""The key ``corpus``: texts to model, by split.

    "corpus": {"train": "books/*.txt", "validation": "valid.txt", "test": "test.txt"}
    "corpus": {"train": ["a.jsonl", "b.parquet"], "column": "body", "max_tokens": {"test": 50000}}
    "corpus": "wiki2"                                  a data set of the hub, see ``seq2seq.causal.named_texts``
    "corpus": {"train": "dataset:roneneldan/TinyStories", "test": "test.txt"}

A .txt file is one text; each row of a tsv, csv, jsonl, json or parquet file is one, in the column ``column``.
"""

import glob
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from adapters import ConfigurationError
from adapters.validation import check_keys, from_json, nearest_name, refuse
from seq2seq import PROJECT, SPLITS
from seq2seq.causal.named_texts import CORPORA, PREFIX, is_name, named_texts
from seq2seq.errors import refusing
from seq2seq.tasks.files import READERS, read_rows

WHERE = "the corpus"
EMPTY = "a file has text; got {}, which is empty: leave it out"
PART = 2**20
"""Characters of a file that are read at once."""
Text = str | Iterator[str]
"""A text, or its parts one after another, which are read before the next text."""


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """Texts by split.

    Args:
        train, validation, test: a file, a pattern with * of files, a data set by name, or a list of these; None for
            no such split.
        column: the column of the texts in files of rows.
        max_tokens: the first tokens of a split that are used, by split; all by default.
    """

    train: str | tuple[str, ...] | None = None
    validation: str | tuple[str, ...] | None = None
    test: str | tuple[str, ...] | None = None
    column: str = "text"
    max_tokens: dict[str, int] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, values: Any) -> "Corpus":
        """Read the key's JSON form: an object, or the name of a data set with all splits.

        Raises:
            ConfigurationError: a key is unknown, or a value is not valid.
        """
        if isinstance(values, str):
            if not is_name(values):
                rule = f"is an object of texts by split, or a data set: a short name, or {PREFIX!r} and its name"
                refuse("corpus", rule, repr(values), nearest_name(values, CORPORA), "the run")
            values = dict.fromkeys(("test",) if values == "lambada" else SPLITS, values)
        if not isinstance(values, dict):
            raise ConfigurationError(
                f"Key 'corpus' is an object of texts by split; got {values!r}: write for example "
                '{"train": "train.txt", "test": "test.txt"}.'
            )
        return from_json(cls, values, WHERE)

    def __post_init__(self) -> None:
        if not self.splits:
            refuse("corpus", "has texts of a split", "none", f"give one of {', '.join(SPLITS)}", "the run")
        check_keys(self.max_tokens, self.splits, "the key 'max_tokens' of the corpus")
        for split, count in self.max_tokens.items():
            if count < 2:
                refuse("max_tokens", "counts at least 2 tokens", f"{count} for {split!r}", "raise it", WHERE)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form, which ``from_dict`` reads back."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that have texts."""
        return tuple(split for split in SPLITS if getattr(self, split))

    def sources(self, split: str) -> list[str]:
        """The names and patterns of a split."""
        given = getattr(self, split)
        return [given] if isinstance(given, str) else list(given or ())

    def check_files(self) -> None:
        """Refuse files that do not exist or have an unknown suffix, and names that no data set has."""
        for split in self.splits:
            for source in self.sources(split):
                check_source(source, self.column, f"corpus.{split}")

    def identity(self, split: str) -> list[Any]:
        """What the texts of a split are: names, and files with their sizes and times."""
        found: list[Any] = [self.column]
        for source in self.sources(split):
            key = f"corpus.{split}"
            if named := named_texts(source, self.column, key):
                found.append(named.identity(split))
            else:
                states = [(path.absolute(), path.stat()) for path in files_of(source, key)]
                found += [[str(path), state.st_size, state.st_mtime_ns] for path, state in states]
        return found

    def texts(self, split: str) -> Iterator[Text]:
        """The texts of a split, one at a time."""
        for source in self.sources(split):
            yield from texts_of(source, split, self.column, f"corpus.{split}")


def check_source(source: str, column: str, key: str) -> None:
    """Refuse a path, a pattern or a name that gives no texts; what the hub has is not looked up."""
    if named_texts(source, column, key) is None:
        files_of(source, key)


def texts_of(source: str, split: str, column: str, key: str) -> Iterator[Text]:
    """The texts of a path, a pattern or a data set by name, one at a time.

    Raises:
        ConfigurationError: they cannot be read.
    """
    if named := named_texts(source, column, key):
        yield from named.texts(split, key)
        return
    for path in files_of(source, key):
        yield from file_texts(path, column, key)


def files_of(source: str, key: str) -> list[Path]:
    """The files of a path or a pattern, here or in the project, in the order of their names.

    Raises:
        ConfigurationError: there is none, or one is of an unknown format.
    """
    given = os.path.expanduser(source)
    patterns = (glob.escape(given), given, str(PROJECT / given))
    names = next(filter(None, (sorted(glob.glob(pattern, recursive=True)) for pattern in patterns)), [])
    paths = [Path(name) for name in names if os.path.isfile(name)]
    if not paths:
        raise ConfigurationError(
            f"Key {key!r} names files, '{PREFIX}' and a data set, or one of {', '.join(CORPORA)}; got {source!r}, "
            "which matches no file: check the path."
        )
    for path in paths:
        if path.suffix not in (".txt", *READERS):
            raise ConfigurationError(
                f"Key {key!r} names files with one of the suffixes .txt, {', '.join(READERS)}; got {str(path)!r}: "
                "convert or rename it."
            )
    return paths


def file_texts(path: Path, column: str, key: str) -> Iterator[Text]:
    """The texts of a file; ``key`` names it in error messages.

    Raises:
        ConfigurationError: it is not UTF-8, is empty, or a row has no text.
    """
    if path.suffix == ".txt":
        yield parts_of(path, key)
        return
    found = False
    with refusing(key, path):
        for number, row in enumerate(read_rows(path), 1):
            text = row.get(column)
            if not isinstance(text, str):
                raise ValueError(
                    f"each row has a text in the column {column!r}; got {text!r} in row {number} of {path}: set "
                    "corpus.column, or complete the row"
                )
            if text.strip():
                found = True
                yield text
        if not found:
            raise ValueError(EMPTY.format(path))


def parts_of(path: Path, key: str) -> Iterator[str]:
    """The text of a file in parts of at most PART characters; errors as for ``file_texts``."""
    found = False
    with refusing(key, path), path.open(encoding="utf-8-sig") as file:
        while part := file.read(PART):
            found = found or bool(part.strip())
            yield part
        if not found:
            raise ValueError(EMPTY.format(path))
