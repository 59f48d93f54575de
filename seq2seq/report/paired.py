"""Paired differences: two methods are compared seed by seed, so that what a seed does to both of them cancels.

d_s = metric of the method - metric of the reference, both with seed s;   mean(d) +- std(d) / sqrt(number of seeds)
"""

import math
import statistics
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from adapters import ConfigurationError
from adapters.validation import nearest_name
from seq2seq.report.methods import Method


@dataclass(frozen=True)
class Difference:
    """A mean difference to a reference, its standard error (None for one pair), and the number of pairs."""

    mean: float
    standard_error: float | None
    pairs: int

    def text(self, digits: int = 4) -> str:
        """The mean with its sign and the standard error with this many decimals, and the number of pairs."""
        error = "" if self.standard_error is None else f" ± {self.standard_error:.{digits}f}"
        return f"{self.mean:+.{digits}f}{error} ({self.pairs})"


def paired_difference(method: Method, reference: Method, tasks: Collection[str]) -> Difference | None:
    """Compare means over tasks, for the seeds that both methods have in all of them; None if there are none."""
    own, other = method.by_seed(tasks), reference.by_seed(tasks)
    differences = [own[seed] - other[seed] for seed in own if seed in other]
    if not differences:
        return None
    several = len(differences) > 1
    error = statistics.stdev(differences) / math.sqrt(len(differences)) if several else None
    return Difference(statistics.fmean(differences), error, len(differences))


def reference_of(methods: Sequence[Method], label: str | None) -> Method:
    """The method of this label among the rows of a table; the first one, which is the best, if there is none."""
    return next((method for method in methods if method.label == label), methods[0])


def check_reference(methods: Sequence[Method], label: str | None) -> None:
    """Refuse a label that no method has."""
    labels = [method.label for method in methods]
    if label is not None and label not in labels:
        raise ConfigurationError(
            f"Option --reference is the name of a method; got {label!r}: {nearest_name(label, labels)}"
        )
