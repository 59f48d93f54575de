"""Task mixtures: one run on several tasks, with the training rows of all of them shuffled together.

An epoch has n rows, the sum of the training rows n_i of the k tasks; task i contributes the share p_i of them:

    proportional     p_i ~ n_i
    temperature T    p_i ~ n_i^(1/T)     Raffel et al. 2020, section 3.5.2; T = 1 is proportional, T -> oo is equal
    equal            p_i ~ 1
    weights w_i      p_i ~ w_i

With batches of one task, an epoch consists of blocks: a block is the rows of one step of all processes, so that under
torchrun all processes train on the same task. Shares are then shares of blocks.

The rows of each task form an endless stream of passes, each a fresh permutation of all its rows, and an epoch takes the
next part of the stream: at any time, the numbers of draws of two rows of a task differ by at most one. The rows of an
epoch depend only on the seed and the epoch's number, so that a run can resume in the middle of an epoch.
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

WHERE = "the mixture"
_refuse = partial(refuse, where=WHERE)


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """A mixture of several tasks in one run.

    Args:
        tasks: names of two or more tasks.
        weights: one of the rules above for the tasks' shares, or a positive weight for each task.
        temperature: T of the rule "temperature", above 0; None for the other rules.
        batches: "mixed" for batches with rows of all tasks, "one_task" for batches of a single task.
        adapters: "shared" by all tasks, or "per_task", which needs batches of one task.

    Raises:
        ConfigurationError: a task is listed twice, or two values are incompatible.
    """

    tasks: tuple[str, ...]
    weights: Literal["proportional", "equal", "temperature"] | dict[str, float] = "proportional"
    temperature: float | None = None
    batches: Literal["mixed", "one_task"] = "mixed"
    adapters: Literal["shared", "per_task"] = "shared"

    def __post_init__(self) -> None:
        if len(self.tasks) < 2:
            _refuse("tasks", "lists two or more tasks", list(self.tasks), "add one, or set task_name instead")
        for name in self.tasks:
            if self.tasks.count(name) > 1:
                _refuse("tasks", "lists each task once", f"{name!r} twice", "drop one, and raise its weight instead")
        if isinstance(self.weights, dict):
            self._check_weights(self.weights)
        if (self.temperature is None) == (self.weights == "temperature"):
            given = f"{self.temperature} with the weights {self.weights!r}"
            _refuse("temperature", "is set if and only if the weights are 'temperature'", given, "set both or neither")
        if self.temperature is not None and not 0 < self.temperature < math.inf:
            _refuse("temperature", "is above 0", self.temperature, "raise it; 1 gives proportional shares")
        if self.adapters == "per_task" and self.batches != "one_task":
            rule = "is 'one_task' if each task has its own adapters"
            _refuse("batches", rule, repr(self.batches), "set it to 'one_task', or adapters to 'shared'")

    def _check_weights(self, weights: dict[str, float]) -> None:
        for name in weights:
            if name not in self.tasks:
                _refuse("weights", "has no weights for other tasks", repr(name), nearest_name(name, self.tasks))
        for name in self.tasks:
            if name not in weights:
                _refuse("weights", "has a weight for each task", f"none for {name!r}", "add it")
            if not 0 < weights[name] < math.inf:
                _refuse("weights", "has weights above 0", f"{weights[name]} for {name!r}", "raise it, or drop the task")

    @classmethod
    def from_dict(cls, values: Any) -> "Mixture":
        """Read a mixture from its JSON form.

        Raises:
            ConfigurationError: a key is unknown or missing, or a value is not valid.
        """
        if not isinstance(values, dict):
            raise ConfigurationError(
                f"Key 'mixture' is an object; got {values!r}: write for example "
                '{"tasks": ["world_sentiment", "world_paraphrase"]}.'
            )
        return from_json(cls, values, WHERE)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form, which ``from_dict`` reads back."""
        return {**asdict(self), "tasks": list(self.tasks)}

    def shares(self, sizes: Mapping[str, int]) -> dict[str, float]:
        """Return each task's share of an epoch's rows, summing to 1, from the tasks' numbers of training rows."""
        largest = max(sizes.values())
        if isinstance(self.weights, dict):
            heaviest = max(self.weights.values())  # by which all are divided, so that their sum cannot overflow
            weights = {name: self.weights[name] / heaviest for name in sizes}
        elif self.weights == "equal":
            weights = dict.fromkeys(sizes, 1.0)
        else:
            weights = {name: (size / largest) ** (1 / (self.temperature or 1.0)) for name, size in sizes.items()}
        total = sum(weights.values())
        return {name: weight / total for name, weight in weights.items()}

    def sampler(self, sizes: Mapping[str, int], step_rows: int, seed: int) -> "MixtureSampler":
        """Make the sampler of training rows.

        Args:
            sizes: the number of training rows of each task, in the order in which the rows are concatenated.
            step_rows: rows of one micro-step of all processes; with batches of one task, all of the same task.
            seed: decides, together with the number of the epoch, which rows are drawn.

        Raises:
            ConfigurationError: a task's share of an epoch is less than half a row, or half a batch.
        """
        block = step_rows if self.batches == "one_task" else 1
        shares = self.shares(sizes)
        blocks = apportion(list(shares.values()), math.ceil(sum(sizes.values()) / block))
        for name, count in zip(sizes, blocks, strict=True):
            if count == 0:
                rule = f"gives each task at least {block} rows of an epoch"
                _refuse("weights", rule, f"a share of {shares[name]:.2%} for {name!r}", "raise it, or use 'equal'")
        return MixtureSampler(list(sizes.values()), blocks, block, seed)


class MixtureSampler(Sampler[int]):
    """Sample the rows of an epoch, as indices into the concatenated rows of the tasks.

    Args:
        sizes: number of rows of each task.
        blocks: number of blocks that each task contributes to an epoch.
        block: number of consecutive rows in a block.
        seed: decides, together with the number of the epoch, which rows are drawn.
    """

    def __init__(self, sizes: list[int], blocks: list[int], block: int, seed: int) -> None:
        self.sizes, self.blocks, self.block, self.seed = sizes, blocks, block, seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, counted from 0, of the next iteration."""
        self.epoch = epoch

    def __len__(self) -> int:
        return sum(self.blocks) * self.block

    def __iter__(self) -> Iterator[int]:
        rows = np.concatenate([self._next_rows(task) for task in range(len(self.sizes))])
        blocks = rows.reshape(-1, self.block)  # (blocks of all tasks, block)
        order = np.random.default_rng([self.seed, 0, self.epoch]).permutation(len(blocks))
        yield from blocks[order].ravel().tolist()

    def _next_rows(self, task: int) -> np.ndarray:
        """Return the part of a task's stream that the epoch takes, as indices among the rows of all tasks."""
        size, count = self.sizes[task], self.blocks[task] * self.block
        first, last = self.epoch * count, (self.epoch + 1) * count
        passes = range(first // size, -(-last // size))
        stream = np.concatenate(
            [np.random.default_rng([self.seed, task + 1, number]).permutation(size) for number in passes]
        )
        start = first - passes.start * size
        return sum(self.sizes[:task]) + stream[start : start + count]


def apportion(shares: list[float], total: int) -> list[int]:
    """Split ``total`` into integers, each within one of its share: the method of largest remainders."""
    exact = np.asarray(shares) * total
    counts = np.floor(exact).astype(int)
    missing = total - counts.sum()
    counts[np.argsort(counts - exact, kind="stable")[:missing]] += 1
    return counts.tolist()
