"""The batches of a run: synthetic traces that are drawn anew in training, and those of ``seq2seq.swipe.rows``.

A batch has points (batch, time, 2), attention_mask (batch, time), boxes (batch, letters, 4) and labels (batch,
longest), see ``third_party.models.swipe``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor

from seq2seq.swipe.augmentation import random_layout
from seq2seq.swipe.keyboards.boxes import boxes_of
from seq2seq.swipe.keys import SwipeKeys
from seq2seq.swipe.rows import Rows, check_words_to_draw, load_rows, words_to_draw
from seq2seq.swipe.traces.synthetic import synthetic_points
from seq2seq.swipe.traces.trace import padded
from third_party.models.swipe.configuration import END, FIRST_LETTER, FIRST_LETTER_TOKEN
from third_party.trainers import IGNORED_LABEL
from third_party.trainers.task_adapters import TASK_COLUMN

POOL = 4
"""Batches that are drawn for each one that is trained on, so that its traces have similar lengths."""


@dataclass(frozen=True)
class SwipeData:
    """The traces of every split.

    Args:
        seed: of the traces that are drawn in training.
        fixed: those that are read, or drawn once, by split.
    """

    keys: SwipeKeys
    seed: int
    fixed: Mapping[str, Rows]

    @cached_property
    def alphabet(self) -> str:
        """The letters of the model."""
        return self.keys.config.alphabet

    @cached_property
    def boxes(self) -> dict[str, np.ndarray]:
        """The keys of the model's letters by layout."""
        return {name: boxes_of(layout, self.alphabet) for name, layout in self.keys.layouts.items()}

    @cached_property
    def training_words(self) -> dict[str, np.ndarray]:
        """The words that synthetic traces of training are drawn of, by layout."""
        return {name: np.array(words_to_draw(lexicon, "train")) for name, lexicon in self.keys.words.items()}

    @property
    def training_rows(self) -> Dataset | range:
        """The rows of training: numbers, whose traces are drawn a batch at a time, or those of a file."""
        return self.rows("train") if "train" in self.fixed else range(self.keys.synthetic_traces)

    def rows(self, split: str) -> Dataset:
        """A split as rows that ``collate`` takes."""
        return Dataset.from_dict({"split": [split] * len(self.fixed[split]), "row": range(len(self.fixed[split]))})

    def collate(self, rows: Sequence[int] | Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """A batch of training numbers, or of rows."""
        if isinstance(rows[0], int):
            return self.drawn(rows)
        split, numbers = rows[0]["split"], [row["row"] for row in rows]
        found = self.fixed[split]
        boxes = np.stack([self.boxes[found.layouts[n]] for n in numbers])
        rng = np.random.default_rng([self.seed, *numbers]) if split == "train" else None
        batch = self.batch([found.words[n] for n in numbers], [found.points[n] for n in numbers], boxes, rng)
        return self.with_task(batch, [found.layouts[n] for n in numbers])

    def drawn(self, numbers: Sequence[int]) -> dict[str, Tensor]:
        """Synthetic traces, which depend on the keys, the seed and these numbers alone."""
        rng = np.random.default_rng([self.seed, *numbers])
        name = list(self.keys.layouts)[int(rng.integers(len(self.keys.layouts)))]
        layout = self.keys.layouts[name]
        if self.keys.random_layouts:
            layout = random_layout(rng, layout.alphabet)
        words = rng.choice(self.training_words[name], POOL * len(numbers))
        points = synthetic_points(words.tolist(), layout, self.keys.config.rate, int(rng.integers(2**31)))
        chosen = of_similar_length(points, len(numbers), rng)
        boxes = np.stack([boxes_of(layout, self.alphabet)] * len(chosen))
        batch = self.batch(words[chosen].tolist(), [points[n] for n in chosen], boxes, rng)
        return self.with_task(batch, [name] * len(chosen))

    def with_task(self, batch: dict[str, Tensor], layouts: Sequence[str]) -> dict[str, Tensor]:
        """A batch with a column for the layout of each row, if layouts have adapters of their own."""
        if not self.keys.adapters_per_layout:
            return batch
        names = list(self.keys.layouts)
        return {**batch, TASK_COLUMN: torch.tensor([names.index(name) for name in layouts])}

    def batch(
        self, words: Sequence[str], points: Sequence[np.ndarray], boxes: np.ndarray, rng: np.random.Generator | None
    ) -> dict[str, Tensor]:
        """The arrays of these traces as one batch, augmented if there is a generator."""
        batch, mask = padded(points)
        if rng is not None and self.keys.augmentation is not None:
            batch, boxes = self.keys.augmentation(batch, mask, boxes, rng)
        arrays = {"points": batch, "attention_mask": mask, "boxes": boxes.astype(np.float32)}
        arrays["labels"] = labels_of(words, self.alphabet, self.keys.architecture)
        return {name: torch.from_numpy(array) for name, array in arrays.items()}


def labels_of(words: Sequence[str], alphabet: str, architecture: str) -> np.ndarray:
    """The letters of words as a model's classes or tokens, (words, longest) int64, padded with -100."""
    decodes = architecture == "encoder_decoder"
    first = FIRST_LETTER_TOKEN if decodes else FIRST_LETTER
    classes = [[first + alphabet.index(letter) for letter in word] + [END] * decodes for word in words]
    labels = np.full((len(words), max(1, *map(len, classes))), IGNORED_LABEL, np.int64)
    for row, found in zip(labels, classes, strict=True):
        row[: len(found)] = found
    return labels


def of_similar_length(points: Sequence[np.ndarray], count: int, rng: np.random.Generator) -> np.ndarray:
    """The numbers of so many traces of similar length, as padding costs time: a slice of the sorted ones."""
    by_length = np.argsort([len(trace) for trace in points], kind="stable")
    start = count * int(rng.integers(len(points) // count))
    return by_length[start : start + count]


def load_swipes(keys: SwipeKeys, seed: int) -> SwipeData:
    """The traces of a run.

    Raises:
        ConfigurationError: as ``load_rows``, or there is no word to draw training traces of.
    """
    data = SwipeData(keys, seed, load_rows(keys))
    if "train" not in data.fixed:
        for name, words in data.training_words.items():
            check_words_to_draw(words, "train", name)
    return data
