"""Prompts: drawn anew in training, fixed in evaluation.

The rows of training are numbers, whose prompts are drawn a batch at a time when the trainer reaches it: at the sizes of
that step of the curriculum, and 64 prompts of 8 points in .5 ms, where 64 draws of one take 3.1.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor

from seq2seq.in_context.curriculum import Sizes
from seq2seq.in_context.keys import InContextKeys
from seq2seq.in_context.tasks import Prompts

SEEDS: Mapping[str, int] = {"validation": 1, "test": 2}
"""Of the fixed prompts, the same in every run."""

TRAIN = 0
"""Begins the seeds of training prompts."""


@dataclass(frozen=True)
class InContextData:
    """The fixed prompts of each split, and what draws those of training."""

    keys: InContextKeys
    seed: int
    fixed: Mapping[str, Prompts]

    def rows(self, split: str) -> Dataset:
        """The prompts of a split as rows: inputs (length, ...), labels (answers,)."""
        return Dataset.from_dict(self.fixed[split].encoded()).with_format("torch")

    @property
    def numbers(self) -> range:
        """The training rows: the numbers of an epoch's prompts."""
        return range(self.keys.prompts)

    def batch(self, numbers: Sequence[int], step: int) -> dict[str, Tensor]:
        """Training prompts, which depend on the keys, the seed, these numbers and the sizes at this step alone.

        Returns:
            inputs (numbers, length, ...), labels (numbers, answers), at the sizes of the step.
        """
        (mixed,) = np.random.SeedSequence([TRAIN, self.seed, *numbers]).generate_state(1)  # torch reads 32 bits
        generator = torch.Generator().manual_seed(int(mixed))
        return draw(self.keys, len(numbers), generator, self.keys.sizes_at(step)).encoded()


def draw(keys: InContextKeys, count: int, generator: torch.Generator, sizes: Sizes | None = None) -> Prompts:
    """Prompts of the run's function class; None for its full sizes."""
    return keys.task.draw(count, sizes or keys.full_sizes, generator)


def load_prompts(keys: InContextKeys, seed: int) -> InContextData:
    """The prompts of a run."""
    fixed = {
        split: draw(keys, keys.evaluation_prompts, torch.Generator().manual_seed(number))
        for split, number in SEEDS.items()
    }
    return InContextData(keys, seed, fixed)
