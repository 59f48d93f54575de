"""A curriculum: training begins with few dims, few points and few loops, and ends with those of the run.

    {"dims": {"start": 1, "increment": 1, "interval": 300}, "points": {...}, "loops": {...}}

    value at optimizer step s = min(end, start + increment * floor(s / interval))      s = 0, 1, ...

The end is that of the run, at which it is evaluated: the dims that are not zero, n_points and num_loops. Dims beyond
the value are zero; prompts have so many points, and so are shorter; gradients go through the last min(T, loops) loops.

A value is a function of the trainer's global step alone. The step that a batch will train is known neither to its rows,
whose order is shuffled, nor to the loader, which is ahead of the trainer: so a loader gives numbers only, and the
trainer draws their prompts when it trains on them. A resumed run gets the same numbers at the same steps.
"""

from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from adapters.validation import check_keys, from_json, refuse

WHERE = "the curriculum"
EXAMPLE = 'write for example {"dims": {"start": 1, "interval": 300}}'


class Sizes(NamedTuple):
    """What a curriculum changes; tokens have no dims."""

    dims: int | None
    points: int
    loops: int


@dataclass(frozen=True, kw_only=True)
class Ramp:
    """How one size grows.

    Args:
        start: the value of the first steps.
        increment: what is added after every interval.
        interval: in optimizer steps.
    """

    start: int
    increment: int = 1
    interval: int

    def __post_init__(self) -> None:
        for key, value in asdict(self).items():
            if value < 1:
                refuse(key, "must be at least 1", value, "write a positive number", WHERE)

    @classmethod
    def of(cls, size: str, values: Any) -> "Ramp":
        """Read the JSON form of the ramp of a size."""
        if not isinstance(values, dict):
            refuse(size, "is an object", repr(values), EXAMPLE, WHERE)
        return from_json(cls, values, f"{WHERE} over {size}")

    def at(self, step: int, end: int) -> int:
        """The value at an optimizer step, which counts from 0."""
        return min(end, self.start + self.increment * (step // self.interval))


@dataclass(frozen=True, kw_only=True)
class Curriculum:
    """Ramps of the sizes that grow; None for the end from the first step on."""

    dims: Ramp | None = None
    points: Ramp | None = None
    loops: Ramp | None = None

    @classmethod
    def from_dict(cls, values: Any) -> "Curriculum":
        """Read the JSON form.

        Raises:
            ConfigurationError: a key is unknown or missing, or a value is out of range.
        """
        if not isinstance(values, dict):
            refuse("curriculum", "is an object", repr(values), EXAMPLE, "the run")
        check_keys(values, Sizes._fields, WHERE)
        return cls(**{size: None if ramp is None else Ramp.of(size, ramp) for size, ramp in values.items()})

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form, which ``from_dict`` reads back."""
        return asdict(self)

    def check(self, ends: Sizes) -> None:
        """Refuse a start above the end."""
        for size, end in ends._asdict().items():
            ramp = getattr(self, size)
            if ramp is not None and ramp.start > end:
                rule = f"is at most the {size} of the run, {end}"
                refuse("start", rule, ramp.start, "lower it", f"{WHERE} over {size}")

    def at(self, step: int, ends: Sizes) -> Sizes:
        """The sizes at an optimizer step, which counts from 0."""
        ramps = (getattr(self, size) for size in Sizes._fields)
        return Sizes(*(end if ramp is None else ramp.at(step, end) for ramp, end in zip(ramps, ends, strict=True)))
