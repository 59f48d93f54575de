"""Bad swipes: traces of other words, of a keyboard that was elsewhere, or with a finger that rested or strayed.

    ends     begins or ends further than ``ends`` key widths outside the key of the first or last letter
    letters  the mean distance of the letters' keys to the path is more than ``letters`` key widths
    length   the path is shorter or longer than ``shortest`` or ``longest`` times the ideal one, see length_ratio

The limits leave 735 of the 777 real swipes of How-We-Swipe, whose writers were told what to write.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

from adapters.validation import from_json, refuse
from seq2seq.swipe.traces.statistics import TraceStatistics

WHERE = "the limits of good swipes"


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The limits of good swipes (see above); infinity (or 0 for ``shortest``) turns a filter off."""

    ends: float = 1.0
    letters: float = 1.0
    shortest: float = 0.5
    longest: float = 2.5

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value >= 0:
                refuse(name, "must be a number from 0", repr(value), "1 is typical", WHERE)

    @classmethod
    def from_dict(cls, values: Any) -> "Limits":
        """Read the JSON form of the key ``limits``.

        Raises:
            ConfigurationError: a key is unknown, or a value is not a number from 0.
        """
        if not isinstance(values, dict):
            refuse("limits", "is an object", repr(values), 'write {"ends": 1.0}, or {} for the defaults', "the run")
        return from_json(cls, values, WHERE)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return asdict(self)


class Example(NamedTuple):
    """A bad swipe.

    Args:
        index: its place among the traces.
        value: what was measured, in key widths or as a ratio.
    """

    index: int
    word: str
    value: float


class FilterReport(NamedTuple):
    """What a filter found.

    Args:
        name: of the filter.
        rule: what a good swipe does.
        bad: (traces,) bool.
        examples: the worst, worst first.
    """

    name: str
    rule: str
    bad: np.ndarray
    examples: list[Example]

    @property
    def count(self) -> int:
        """How many swipes are bad."""
        return int(self.bad.sum())

    def __str__(self) -> str:
        shown = ", ".join(f"{word!r} at {index} ({value:.2f})" for index, word, value in self.examples)
        return f"{self.name}: {self.count} of {len(self.bad)} swipes break the rule: {self.rule}" + (
            f"; the worst: {shown}" if shown else ""
        )


def find_bad(statistics: TraceStatistics, limits: Limits | None = None, examples: int = 5) -> list[FilterReport]:
    """Apply the three filters; swipes without a word pass.

    Args:
        examples: how many each report has at most.
    """
    limits = Limits() if limits is None else limits
    ends = np.maximum(statistics.start_error, statistics.end_error)
    ratio = statistics.length_ratio
    strayed = np.maximum(ratio / limits.longest, limits.shortest / ratio)
    shown = {"shortest": f"{limits.shortest:g}", "longest": f"{limits.longest:g}"}
    rules = (
        ("ends", f"begins and ends within {limits.ends:g} key widths of its keys", ends, ends > limits.ends),
        (
            "letters",
            f"passes its letters at {limits.letters:g} key widths in the mean",
            statistics.letter_error,
            statistics.letter_error > limits.letters,
        ),
        ("length", "is {shortest} to {longest} times as long as its ideal path".format(**shown), ratio, strayed > 1),
    )
    reports = []
    for name, rule, values, bad in rules:
        badness = strayed if name == "length" else values
        order = np.argsort(-np.where(bad, badness, -np.inf), kind="stable")[: min(examples, int(bad.sum()))]
        worst = [Example(int(index), statistics.words[index], float(values[index])) for index in order]
        reports.append(FilterReport(name, rule, bad, worst))
    return reports


def good(reports: Sequence[FilterReport]) -> np.ndarray:
    """Where no filter found a bad swipe: the indices, (kept,) int64."""
    return np.flatnonzero(~np.any([report.bad for report in reports], axis=0))
