"""Texts of data sets that a corpus names.

    wiki2                                                       a short name, see CORPORA
    dataset:roneneldan/TinyStories                              a data set of the hub
    dataset:Salesforce/wikitext/wikitext-103-raw-v1             the same with a configuration
    dataset:roneneldan/TinyStories:train[:99%]                  a split, or a part of one
    dataset:/data/stories                                       a folder of files; it starts with /, . or ~

By default a text is of the split that it is for: ``corpus.train`` reads ``train``. Parts of splits are written as
``datasets.ReadInstruction`` has them. Each row is a text; the lines of .txt files are one.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import datasets
from datasets import Dataset, DatasetDict
from datasets.exceptions import DatasetsError

from adapters.validation import refuse
from seq2seq.causal.file_texts import Text, texts_of_rows
from seq2seq.errors import refusing
from seq2seq.tasks.sources import load_hub_dataset

PREFIX = "dataset:"
WHERE = "the run"
OF_TEXT = (datasets.Value("string"), datasets.Value("large_string"))


class NamedTexts(NamedTuple):
    """A data set with a text in each row: what ``datasets`` calls it, and how its rows are read.

    ``split`` is the one that is read, by default that of the corpus; ``rows_are_lines`` makes one text of all rows.
    """

    name: str
    configuration: str | None
    column: str = "text"
    rows_are_lines: bool = False
    split: str | None = None

    @property
    def folder(self) -> Path | None:
        """The folder of a local data set, else None."""
        return Path(os.path.expanduser(self.name)).absolute() if self.name.startswith(("/", ".", "~")) else None

    def identity(self, split: str, key: str) -> list[Any]:
        """What the texts are: the split, and the files that ``datasets`` keeps, named after revision or times."""
        with _loading(key, self.name):
            kept = [file["filename"] for file in self._rows(split).cache_files]
        return [*self[:4], self.split or split, kept]

    def texts(self, split: str, key: str) -> Iterator[Text]:
        """The texts, one at a time; ``key`` names the data set in error messages.

        Raises:
            ConfigurationError: neither the cache nor the hub has it, it lacks the split or the column, or a row has no
                text.
        """
        with _loading(key, self.name):
            rows = self._rows(split)
            columns = [name for name, feature in rows.features.items() if feature in OF_TEXT]
            if self.column not in columns:
                fix = f"set corpus.column to one of {', '.join(columns)}" if columns else "name another data set"
                raise ValueError(f"each row has a text in the column {self.column!r}; got none: {fix}")
            cells: Iterable[Any] = rows[self.column]
            if rows.info.builder_name == "text":  # which has taken the line breaks
                yield (f"{line}\n" for line in cells)
            elif self.rows_are_lines:
                yield iter(cells)
            else:
                yield from texts_of_rows(cells, self.column, self.name)

    def _rows(self, split: str) -> Dataset:
        """The rows of a split, or of a part of it; they are mapped, not read."""
        if self.folder is not None:
            return part_of(datasets.load_dataset(str(self.folder)), self.split or split)
        found = load_hub_dataset(self.name, self.configuration)
        rows = part_of(found, self.split or split)
        actual = rows.info.config_name
        if self.configuration is None and actual not in (None, "default"):  # in the cache there may be one of several
            raise ValueError(
                f"the name has the configuration if it is not 'default'; got none: write {PREFIX}{self.name}/{actual}, "
                "or another one"
            )
        return rows


def part_of(splits: DatasetDict, wanted: str) -> Dataset:
    """The rows of a split, a part, or a sum of them, such as "train[:99%]".

    Raises:
        ValueError: there is no such split, or no row.
    """
    sizes = {name: len(rows) for name, rows in splits.items()}
    parts = [
        (part.splitname, part.from_ or 0, sizes[part.splitname] if part.to is None else part.to)
        for part in datasets.ReadInstruction.from_spec(wanted).to_absolute(sizes)
    ]
    found = [splits[name].select(range(start, end)) for name, start, end in parts if start < end]
    if not found:
        raise ValueError(f"a split has rows; got none in {wanted!r}: name a larger part")
    return datasets.concatenate_datasets(found) if len(found) > 1 else found[0]


@contextmanager
def _loading(key: str, name: str) -> Iterator[None]:
    """Turn the errors of ``datasets`` in the body into a ConfigurationError about ``key``."""
    with refusing(key, name):
        try:
            yield
        except DatasetsError as error:
            raise ValueError(str(error.__cause__ or error)) from error


CORPORA = {
    "wiki2": NamedTexts("Salesforce/wikitext", "wikitext-2-raw-v1", rows_are_lines=True),
    "wiki103": NamedTexts("Salesforce/wikitext", "wikitext-103-raw-v1", rows_are_lines=True),
    "lambada": NamedTexts("EleutherAI/lambada_openai", "default"),
}
"""Data sets of the hub by short name."""


def is_name(source: str) -> bool:
    """Whether ``source`` names a data set, not files."""
    return source in CORPORA or source.startswith(PREFIX)


def named_texts(source: str, column: str, key: str) -> NamedTexts | None:
    """The data set that ``source`` names, or None where it is of files.

    Raises:
        ConfigurationError: it is no name of a data set, or there is no such folder.
    """
    if source in CORPORA:
        return CORPORA[source]
    if not is_name(source):
        return None
    name, colon, split = source.removeprefix(PREFIX).partition(":")
    named = NamedTexts(name, None, column, split=split or None)
    parts = name.split("/")
    example = "write for example 'dataset:roneneldan/TinyStories' or 'dataset:/data/stories:train[:99%]'"
    if colon and not split:
        refuse(key, "names a split after a second colon", repr(source), example, WHERE)
    if named.folder is not None:
        if not named.folder.is_dir():
            refuse(key, "names a folder that is there", repr(source), "check the path", WHERE)
        return named
    if not all(parts) or len(parts) > 3:
        refuse(key, "names a data set by owner, name and configuration, or a folder", repr(source), example, WHERE)
    return named._replace(name="/".join(parts[:2]), configuration=parts[2] if len(parts) == 3 else None)
