"""Texts of data sets that a corpus names.

    wiki2                                                       a short name, see CORPORA
    dataset:roneneldan/TinyStories                              a data set of the hub
    dataset:Salesforce/wikitext/wikitext-103-raw-v1             the same with a configuration
    dataset:Skylion007/openwebtext:train[:99%]                  a split, or a part of one
    dataset:/data/stories                                       a folder of files, which starts with /, . or ~

By default a text is of the split that it is for: ``corpus.train`` reads ``train``. Parts of splits are those of
``datasets.load_dataset``.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import datasets

from adapters.validation import refuse
from seq2seq.errors import refusing
from seq2seq.tasks.sources import load_hub_dataset

PREFIX = "dataset:"
WHERE = "the run"


class NamedTexts(NamedTuple):
    """A data set with a text in each row: what ``datasets`` calls it, and how its rows are read.

    ``split`` is the one that is read, by default that of the corpus; the rows of a text by lines are one text.
    """

    name: str
    configuration: str | None
    column: str = "text"
    rows_are_lines: bool = False
    split: str | None = None

    @property
    def folder(self) -> Path | None:
        """The folder of a local data set, else None."""
        return Path(self.name).expanduser() if self.name.startswith(("/", ".", "~")) else None

    def identity(self, split: str) -> list[Any]:
        """What the texts are: names, and the files of a folder with their sizes and times."""
        folder, split = self.folder, self.split or split
        if folder is None:
            return [*self[:-1], split]
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        return [
            *[str(folder.absolute()), *self[1:-1], split],
            [[str(path), path.stat().st_size, path.stat().st_mtime_ns] for path in files],
        ]

    def texts(self, split: str, key: str) -> Iterator[str | Iterator[str]]:
        """The texts, one at a time; ``key`` names the data set in error messages.

        Raises:
            ConfigurationError: neither the cache nor the hub has it, or it lacks the split or the column.
        """
        given = self.name if self.configuration is None else f"{self.name}/{self.configuration}"
        with refusing(key, given):
            if self.folder is None:
                rows = load_hub_dataset(self.name, self.configuration, self.split or split)
            else:
                rows = datasets.load_dataset(str(self.folder), split=self.split or split)
            if rows.features.get(self.column) not in (datasets.Value("string"), datasets.Value("large_string")):
                fix = f"set corpus.column to one of {', '.join(rows.features)}"
                raise ValueError(f"each row has a text in the column {self.column!r}; got none: {fix}")
        texts = rows[self.column]
        yield from [iter(texts)] if self.rows_are_lines else filter(None, texts)


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
    name, _, split = source.removeprefix(PREFIX).partition(":")
    named = NamedTexts(name, None, column, split=split or None)
    if named.folder is not None:
        if not named.folder.is_dir():
            refuse(key, "names a folder that is there", repr(source), "check the path", WHERE)
        return named._replace(name=os.path.expanduser(name))
    parts = name.split("/")
    if not all(parts) or len(parts) > 3:
        fix = "write for example 'dataset:roneneldan/TinyStories'"
        refuse(key, "names a data set by owner, name and configuration, or a folder", repr(source), fix, WHERE)
    return named._replace(name="/".join(parts[:2]), configuration=parts[2] if len(parts) == 3 else None)
