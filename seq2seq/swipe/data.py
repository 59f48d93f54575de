"""Traces of a run: drawn anew in training, or read from files; the batches that the model takes.

A batch has points (batch, time, 2), attention_mask (batch, time), boxes (batch, letters, 4) and labels (batch,
longest), see ``third_party.models.swipe``.

Words are divided over the splits by a hash, six in ten for training, one for validation and three for test: those of
synthetic traces and of a ``traces_file``. So no word of an evaluation was trained on.
"""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor

from seq2seq.swipe.augmentation import random_layout
from seq2seq.swipe.keyboards.layout import Layout
from seq2seq.swipe.keyboards.layouts import Layouts
from seq2seq.swipe.keys import SwipeKeys, letters_of
from seq2seq.swipe.traces.reading import read_traces
from seq2seq.swipe.traces.synthetic import synthetic_points
from seq2seq.swipe.traces.trace import padded, resampled
from seq2seq.tasks.keys import located
from third_party.models.swipe.configuration import END, FIRST_LETTER, FIRST_LETTER_TOKEN
from third_party.trainers import IGNORED_LABEL

SEEDS: Mapping[str, int] = {"validation": 1, "test": 2}
"""Of the synthetic traces of an evaluation, the same in every run."""

SHARES = ("validation", *("test",) * 3, *("train",) * 6)
POOL = 4
"""Batches that are drawn for each one that is trained on, so that its traces have similar lengths."""

AWAY = 1e3
"""Where the keys of letters are that a layout does not have, in key widths."""


def split_of(word: str) -> str:
    """The split that a word belongs to."""
    return SHARES[zlib.crc32(word.encode()) % len(SHARES)]


def boxes_of(layout: Layout, alphabet: str) -> np.ndarray:
    """The keys of an alphabet's letters on a layout, (letters, 4)."""
    found = dict(zip(layout.alphabet, layout.boxes, strict=True))
    absent = np.array([AWAY, AWAY, 1, 1], np.float32)
    return np.stack([found.get(letter, absent) for letter in alphabet])


@dataclass(frozen=True)
class Rows:
    """Traces of a split: each row's word, its layout, its points (time, 2), and its number in the original file."""

    words: list[str]
    layouts: list[str]
    points: list[np.ndarray]
    numbers: list[int]

    def __len__(self) -> int:
        return len(self.words)


@dataclass(frozen=True)
class SwipeData:
    """The traces of every split.

    Args:
        fixed: those that are read, or drawn once, by split.
        seed: of the traces that are drawn in training.
    """

    keys: SwipeKeys
    seed: int
    fixed: Mapping[str, Rows]

    @cached_property
    def alphabet(self) -> str:
        return self.keys.config.alphabet

    @cached_property
    def boxes(self) -> dict[str, np.ndarray]:
        """The keys of the model's letters by layout."""
        return {name: boxes_of(layout, self.alphabet) for name, layout in self.keys.layouts.items()}

    @cached_property
    def training_words(self) -> dict[str, np.ndarray]:
        """The words that synthetic traces of training are drawn of, by layout."""
        return {
            name: np.array([word for word in lexicon.words if split_of(word) == "train"])
            for name, lexicon in self.keys.words.items()
        }

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
        return self.batch([found.words[n] for n in numbers], [found.points[n] for n in numbers], boxes, rng)

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
        return self.batch(words[chosen].tolist(), [points[n] for n in chosen], boxes, rng)

    def batch(
        self, words: Sequence[str], points: Sequence[np.ndarray], boxes: np.ndarray, rng: np.random.Generator | None
    ) -> dict[str, Tensor]:
        """The arrays of these traces as one batch, augmented if there is a generator."""
        batch, mask = padded(points)
        if rng is not None and self.keys.augmentation is not None:
            batch, boxes = self.keys.augmentation(batch, mask, boxes, rng)
        first = FIRST_LETTER if self.keys.architecture == "ctc" else FIRST_LETTER_TOKEN
        letters = [word + first for word in letters_of(words, self.alphabet)]
        if self.keys.architecture == "encoder_decoder":
            letters = [np.append(word, END) for word in letters]
        labels = np.full((len(words), max(map(len, letters))), IGNORED_LABEL, np.int64)
        for row, word in enumerate(letters):
            labels[row, : len(word)] = word
        arrays = {"points": batch, "attention_mask": mask, "boxes": boxes.astype(np.float32), "labels": labels}
        return {name: torch.from_numpy(array) for name, array in arrays.items()}


def of_similar_length(points: Sequence[np.ndarray], count: int, rng: np.random.Generator) -> np.ndarray:
    """The numbers of so many traces of similar length, as padding costs time: a slice of the sorted ones."""
    by_length = np.argsort([len(trace) for trace in points], kind="stable")
    start = count * int(rng.integers(len(points) // count))
    return by_length[start : start + count]


def load_swipes(keys: SwipeKeys, seed: int) -> SwipeData:
    """The traces of a run.

    Raises:
        ConfigurationError: a file cannot be read, or has a word that cannot be typed.
    """
    return SwipeData(keys, seed, {split: split_rows(keys, split) for split in {**SEEDS, **keys.files}})


def split_rows(keys: SwipeKeys, split: str) -> Rows:
    """The traces of a split: those of its file, or synthetic ones."""
    return read_split(keys, split) if split in keys.files else drawn_split(keys, split)


def read_split(keys: SwipeKeys, split: str) -> Rows:
    """The traces of a file."""
    found = list(read_traces(located(keys.files[split]), Layouts(keys.layouts), next(iter(keys.layouts))))
    if keys.traces_file is not None:
        found = [(index, trace) for index, trace in found if split_of(trace.word) == split]
    points = [resampled(trace, keys.layouts[trace.layout], keys.config.rate) for _, trace in found]
    return Rows([t.word for _, t in found], [t.layout for _, t in found], points, [index for index, _ in found])


def drawn_split(keys: SwipeKeys, split: str) -> Rows:
    """Synthetic traces of words that are not trained on, every layout equally often."""
    rng = np.random.default_rng(SEEDS[split])
    found = Rows([], [], [], [])
    shares = np.array_split(np.arange(keys.evaluation_traces), len(keys.layouts))
    for (name, layout), numbers in zip(keys.layouts.items(), shares, strict=True):
        held_out = [word for word in keys.words[name].words if split_of(word) == split]
        words = [held_out[index] for index in rng.permutation(np.arange(len(numbers)) % len(held_out))]
        found.words.extend(words)
        found.layouts.extend([name] * len(words))
        found.points.extend(synthetic_points(words, layout, keys.config.rate, int(rng.integers(2**31))))
        found.numbers.extend(numbers.tolist())
    return found
