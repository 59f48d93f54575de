"""Mixing: one run on several tasks, the training rows of all of them shuffled together.

Of an epoch of n rows, n the rows that the k tasks have together, task i with n_i rows gives the share p_i:

    proportional     p_i ~ n_i
    temperature T    p_i ~ n_i^(1/T)     Raffel et al. 2020, section 3.5.2; T = 1 is proportional, T -> oo equal
    equal            p_i ~ 1
    numbers w_i      p_i ~ w_i

Where batches are of one task, an epoch is of whole blocks: a block is the rows of one step of all processes, so that
under torchrun all of them are at the same task. Shares are then shares of blocks.

Each task's rows come as an endless stream of passes, each a fresh permutation of all its rows, and an epoch takes the
next part of it: at any moment of a run one row of a task has been drawn as often as any other, or once more. What an
epoch holds depends on the seed and the number of the epoch alone, so that a run resumes in its middle.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
from torch.utils.data import Sampler

from adapters import ConfigurationError
from adapters.validation import from_json, nearest_name, refuse
from seq2seq.tasks.registry import TASKS

WHERE = "the mixture"
_refuse = partial(refuse, where=WHERE)


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """Several tasks in one run.

    Args:
        tasks: names of tasks, two or more.
        weights: the rule above for the tasks' shares, or a positive number for each task.
        temperature: T of the rule "temperature", above 0; None with the others.
        batches: whether a batch has rows of all tasks or of one.
        adapters: whether all tasks share the adapters, or each has its own; its own need batches of one task.

    Raises:
        ConfigurationError: a task is unknown or named twice, or a value does not go with another.
    """

    tasks: tuple[str, ...]
    weights: Literal["proportional", "equal", "temperature"] | dict[str, float] = "proportional"
    temperature: float | None = None
    batches: Literal["mixed", "one_task"] = "mixed"
    adapters: Literal["shared", "per_task"] = "shared"

    def __post_init__(self) -> None:
        for name in self.tasks:
            if name not in TASKS:
                _refuse("tasks", "names tasks", repr(name), nearest_name(name, TASKS))
        if len(self.tasks) < 2:
            _refuse("tasks", "names two tasks or more", list(self.tasks), "add one, or give task_name instead")
        for name in self.tasks:
            if self.tasks.count(name) > 1:
                _refuse("tasks", "names each task once", f"{name!r} twice", "drop one, and raise its weight instead")
        if isinstance(self.weights, dict):
            self._check_numbers(self.weights)
        if (self.temperature is None) == (self.weights == "temperature"):
            given = f"{self.temperature} beside the weights {self.weights!r}"
            _refuse("temperature", "goes with the weights 'temperature' and only with them", given, "give both or none")
        if self.temperature is not None and not 0 < self.temperature < math.inf:
            _refuse("temperature", "is a number above 0", self.temperature, "choose one, 1 for proportional shares")
        if self.adapters == "per_task" and self.batches != "one_task":
            rule = "is 'one_task' where each task has adapters of its own"
            _refuse("batches", rule, repr(self.batches), "set it to 'one_task', or adapters to 'shared'")

    def _check_numbers(self, weights: dict[str, float]) -> None:
        for name in weights:
            if name not in self.tasks:
                _refuse("weights", "has a number for each task only", repr(name), nearest_name(name, self.tasks))
        for name in self.tasks:
            if name not in weights:
                _refuse("weights", "has a number for each task", f"none for {name!r}", "add it")
            if not 0 < weights[name] < math.inf:
                _refuse("weights", "has numbers above 0", f"{weights[name]} for {name!r}", "raise it, or drop the task")

    @classmethod
    def from_dict(cls, values: Any) -> "Mixture":
        """A mixture from its JSON form.

        Raises:
            ConfigurationError: a key is unknown or missing, or a value does not fit.
        """
        if not isinstance(values, dict):
            raise ConfigurationError(
                f"Key 'mixture' is an object; got {values!r}: write for example "
                '{"tasks": ["world_sentiment", "world_paraphrase"]}.'
            )
        return from_json(cls, values, WHERE)

    def to_dict(self) -> dict[str, Any]:
        """The JSON form, which ``from_dict`` reads back."""
        return {**asdict(self), "tasks": list(self.tasks)}

    def shares(self, sizes: Mapping[str, int]) -> dict[str, float]:
        """The share of each task among an epoch's rows, summing to 1, for the tasks' numbers of training rows."""
        largest = max(sizes.values())
        if isinstance(self.weights, dict):
            weights = {name: self.weights[name] for name in sizes}
        elif self.weights == "equal":
            weights = dict.fromkeys(sizes, 1.0)
        else:
            weights = {name: (size / largest) ** (1 / (self.temperature or 1.0)) for name, size in sizes.items()}
        total = sum(weights.values())
        return {name: weight / total for name, weight in weights.items()}

    def sampler(self, sizes: Mapping[str, int], step_rows: int, seed: int) -> "MixtureSampler":
        """The sampler of training rows.

        Args:
            sizes: the number of training rows of each task, in the order in which the rows are concatenated.
            step_rows: rows of one micro-step of all processes, which are of one task where batches are.
            seed: with the number of the epoch it decides what is drawn.

        Raises:
            ConfigurationError: a task's share of an epoch is less than half a row, or half a batch.
        """
        block = step_rows if self.batches == "one_task" else 1
        shares = self.shares(sizes)
        blocks = apportion(list(shares.values()), math.ceil(sum(sizes.values()) / block))
        for name, count in zip(sizes, blocks, strict=True):
            if count == 0:
                rule = f"gives each task {block} rows of an epoch or more"
                _refuse("weights", rule, f"a share of {shares[name]:.2%} for {name!r}", "raise it, or take 'equal'")
        return MixtureSampler(list(sizes.values()), blocks, block, seed)


class MixtureSampler(Sampler[int]):
    """Row numbers of an epoch among the concatenated rows of the tasks.

    Args:
        sizes: rows of each task.
        blocks: how many blocks of an epoch each task gives.
        block: rows of a block, which follow one another.
        seed: with the number of the epoch it decides what is drawn.
    """

    def __init__(self, sizes: list[int], blocks: list[int], block: int, seed: int) -> None:
        self.sizes, self.blocks, self.block, self.seed = sizes, blocks, block, seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """The epoch, counted from 0, that the next iteration gives."""
        self.epoch = epoch

    def __len__(self) -> int:
        return sum(self.blocks) * self.block

    def __iter__(self) -> Iterator[int]:
        rows = np.concatenate([self._next_rows(task) for task in range(len(self.sizes))])
        blocks = rows.reshape(-1, self.block)  # (blocks of all tasks, block)
        order = np.random.default_rng([self.seed, 0, self.epoch]).permutation(len(blocks))
        yield from blocks[order].ravel().tolist()

    def _next_rows(self, task: int) -> np.ndarray:
        """The part of a task's stream of passes that the epoch takes, as row numbers among all tasks."""
        size, count = self.sizes[task], self.blocks[task] * self.block
        first, last = self.epoch * count, (self.epoch + 1) * count
        passes = range(first // size, -(-last // size))
        stream = np.concatenate(
            [np.random.default_rng([self.seed, task + 1, number]).permutation(size) for number in passes]
        )
        start = first - passes.start * size
        return sum(self.sizes[:task]) + stream[start : start + count]


def apportion(shares: list[float], total: int) -> list[int]:
    """Whole numbers that sum to ``total``, each within one of its share of it: the method of largest remainders."""
    exact = np.asarray(shares) * total
    counts = np.floor(exact).astype(int)
    missing = total - counts.sum()
    counts[np.argsort(counts - exact, kind="stable")[:missing]] += 1
    return counts.tolist()
