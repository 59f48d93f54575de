"""Split policies: which labelled rows are used for training, for model selection and for testing.

The test labels of GLUE and SuperGLUE are not public, so the labelled rows (the parts) are divided into three splits by
a policy, that of the task (`TaskSpec.split`) or of the key `split_policy`:

    given   the three splits already exist
    small   half of the validation set becomes the test set
    large   1,000 training rows become the validation set, the validation set becomes the test set
    tenth   a tenth of the training rows becomes the validation set, the validation set becomes the test set
    mnli    the mismatched validation set is used for validation, the matched one for testing

Those of the tasks are Compacter's (Karimi Mahabadi et al. 2021). "tenth" measures on the whole official validation set,
as published tables do, and chooses nothing by it.
"""

from collections.abc import Callable, Mapping

import numpy as np
from datasets import Dataset, DatasetDict

Parts = Mapping[str, Dataset]

HELD_OUT_ROWS = 1000
"""Number of training rows of a "large" task that become its validation set."""


def limit_rows(splits: DatasetDict, limits: Mapping[str, int | None], data_seed: int = 42) -> DatasetDict:
    """Limit each split to `limits[split]` rows drawn at random (None: all rows).

    With the same seed, a smaller sample is a subset of a larger one.

    Raises:
        ValueError: a limit is below 1 or above the number of rows.
    """
    limited = dict(splits)
    for split, limit in limits.items():
        if limit is None:
            continue
        rows = len(splits[split])
        if not 1 <= limit <= rows:
            raise ValueError(
                f"The limit of split {split!r} must be between 1 and {rows}, the number of its rows; got {limit}: "
                "choose a value in that range, or null for all rows."
            )
        limited[split] = splits[split].select(np.random.default_rng(data_seed).permutation(rows)[:limit])
    return DatasetDict(limited)


def _given(parts: Parts, data_seed: int) -> Parts:
    return parts


def _halve_validation(parts: Parts, data_seed: int) -> Parts:
    labelled = parts["validation"]
    groups = labelled["group"][:] if "group" in labelled.column_names else list(range(len(labelled)))
    keys = list(dict.fromkeys(groups))
    if len(keys) < 2:
        unit = "questions" if "group" in labelled.column_names else "rows"
        raise ValueError(
            f"A small task needs two or more labelled {unit} for validation, half of which become its test set; got "
            f"{len(keys)}: add some, or describe the task with a file for each split under the key 'tasks'."
        )
    order = np.random.default_rng(data_seed).permutation(len(keys))
    first_half = {keys[index] for index in order[: len(keys) // 2]}
    return {
        "train": parts["train"],
        "validation": labelled.select([row for row, group in enumerate(groups) if group in first_half]),
        "test": labelled.select([row for row, group in enumerate(groups) if group not in first_half]),
    }


def _hold_out_thousand(parts: Parts, data_seed: int) -> Parts:
    rows = len(parts["train"])
    if rows <= HELD_OUT_ROWS:
        raise ValueError(
            f"A large task needs more than {HELD_OUT_ROWS} training rows, of which {HELD_OUT_ROWS} become its "
            f"validation set; got {rows}: use the full training set."
        )
    return _hold_out(parts, data_seed, HELD_OUT_ROWS)


def _hold_out_tenth(parts: Parts, data_seed: int) -> Parts:
    rows = len(parts["train"])
    if rows < 10:
        raise ValueError(
            f"A task needs 10 or more training rows, of which a tenth becomes its validation set; got {rows}: choose "
            "another split_policy, or use the full training set."
        )
    return _hold_out(parts, data_seed, rows // 10)


def _hold_out(parts: Parts, data_seed: int, held_out: int) -> Parts:
    order = np.random.default_rng(data_seed).permutation(len(parts["train"]))
    return {
        "train": parts["train"].select(order[held_out:]),
        "validation": parts["train"].select(order[:held_out]),
        "test": parts["validation"],
    }


def _mnli(parts: Parts, data_seed: int) -> Parts:
    return {
        "train": parts["train"],
        "validation": parts["validation_mismatched"],
        "test": parts["validation_matched"],
    }


SPLIT_POLICIES: dict[str, tuple[tuple[str, ...], Callable[[Parts, int], Parts]]] = {
    "given": (("train", "validation", "test"), _given),
    "small": (("train", "validation"), _halve_validation),
    "large": (("train", "validation"), _hold_out_thousand),
    "tenth": (("train", "validation"), _hold_out_tenth),
    "mnli": (("train", "validation_mismatched", "validation_matched"), _mnli),
}
"""For each policy: the labelled parts that it needs, and the function that makes three splits of them."""
