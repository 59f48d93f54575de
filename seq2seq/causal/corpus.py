"""The key ``corpus``: texts to model, by split.

    "corpus": {"train": "books/*.txt", "validation": "valid.txt", "test": "test.txt"}
    "corpus": {"train": ["a.jsonl", "b.parquet"], "column": "body", "max_tokens": {"test": 50000}}
    "corpus": "wiki2"                                  a data set of the hub, see ``seq2seq.causal.named_texts``
    "corpus": {"train": "dataset:roneneldan/TinyStories", "test": "test.txt"}

A .txt file is one text; each row of a tsv, csv, jsonl, json or parquet file is one, in the column ``column``.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from adapters import ConfigurationError
from adapters.validation import check_keys, from_json, nearest_name, refuse
from seq2seq import SPLITS
from seq2seq.causal.file_texts import Text, file_texts, files_of
from seq2seq.causal.named_texts import CORPORA, named_texts

WHERE = "the corpus"


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """Texts by split.

    Args:
        train, validation, test: a file, a pattern with * of files, a data set by name, or a list of these; None for
            no such split.
        column: the column of the texts in files of rows and data sets.
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
            if values not in CORPORA:
                rule = "is an object of texts by split, or a data set by short name"
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
        key = f"corpus.{split}"
        return [self.column, *(identity_of(source, split, self.column, key) for source in self.sources(split))]

    def texts(self, split: str) -> Iterator[Text]:
        """The texts of a split, one at a time."""
        for source in self.sources(split):
            yield from texts_of(source, split, self.column, f"corpus.{split}")


def check_source(source: str, column: str, key: str) -> None:
    """Refuse a path, a pattern or a name that gives no texts; what the hub has is not looked up."""
    if named_texts(source, column, key) is None:
        files_of(source, key)


def identity_of(source: str, split: str, column: str, key: str) -> list[Any]:
    """What the texts of a source are, as JSON; errors as for ``texts_of``."""
    if named := named_texts(source, column, key):
        return named.identity(split, key)
    states = [(path.absolute(), path.stat()) for path in files_of(source, key)]
    return [[str(path), state.st_size, state.st_mtime_ns] for path, state in states]


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
