"""Prompts: drawn anew in training, fixed in evaluation."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor

from seq2seq.in_context.function_classes import Prompts, sample
from seq2seq.in_context.keys import InContextKeys

SEEDS: Mapping[str, int] = {"validation": 1, "test": 2}
"""Of the fixed prompts, the same in every run."""

TRAIN = 0
"""Begins the seeds of training prompts."""


@dataclass(frozen=True)
class InContextData:
    """The fixed prompts of each split, and what draws those of training."""

    fixed: Mapping[str, Prompts]
    train: "DrawnPrompts"

    def rows(self, split: str) -> Dataset:
        """The prompts of a split as rows: inputs (2 points, dims), labels (points,)."""
        prompts = self.fixed[split]
        rows = Dataset.from_dict({"inputs": prompts.interleaved().numpy(), "labels": prompts.y.numpy()})
        return rows.with_format("torch")


class DrawnPrompts(torch.utils.data.Dataset):
    """Prompts by number: each number is a prompt that depends on it, the seed and the keys alone."""

    def __init__(self, keys: InContextKeys, seed: int) -> None:
        self.keys, self.seed = keys, seed

    def __len__(self) -> int:
        return self.keys.prompts

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        mixed = np.random.SeedSequence([TRAIN, self.seed, number]).generate_state(1)  # torch reads 32 bits of a seed
        generator = torch.Generator().manual_seed(int(mixed[0]))
        prompts = draw(self.keys, 1, generator)
        return {"inputs": prompts.interleaved()[0], "labels": prompts.y[0]}


def draw(keys: InContextKeys, count: int, generator: torch.Generator) -> Prompts:
    """Prompts of the run's function class."""
    options = {"noise": keys.noise, "nonzero": keys.nonzero}
    return sample(keys.function_class, count, keys.n_points, keys.n_dims, generator, **options)


def load_prompts(keys: InContextKeys, seed: int) -> InContextData:
    """The prompts of a run."""
    fixed = {
        split: draw(keys, keys.evaluation_prompts, torch.Generator().manual_seed(number))
        for split, number in SEEDS.items()
    }
    return InContextData(fixed, DrawnPrompts(keys, seed))


def stacked(rows: list[dict[str, Any]]) -> dict[str, Tensor]:
    """A batch: inputs (batch, 2 points, dims), labels (batch, points)."""
    return {key: torch.stack([torch.as_tensor(row[key]) for row in rows]) for key in ("inputs", "labels")}
