"""Requests of the page, checked: what is refused is named in one sentence, and nothing else reaches a model.

    {"model": "swipe_qwerty", "layout": "qwerty", "lexicon": "en" or null, "x": [...], "y": [...], "t": [...]}

``x`` and ``y`` are pixels of the layout's keyboard, ``t`` milliseconds since the first point.
"""

import math
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import numpy as np
from pydantic_core import from_json

from adapters import ConfigurationError
from adapters.validation import check_keys, nearest_name, refuse
from seq2seq.swipe.keyboards.layout import Layout
from seq2seq.swipe.predictor import Predictor
from seq2seq.swipe.traces.trace import Trace

MAX_BYTES = 256 * 1024
"""The largest body of a request."""

MAX_POINTS = 4096
MAX_MILLISECONDS = 30_000
"""The longest trace: 900 points at a model's 30 points per second."""

KEYS = ("model", "layout", "lexicon", "x", "y", "t")
WHERE = "the request"


class Question(NamedTuple):
    """A checked request."""

    predictor: Predictor
    trace: Trace
    lexicon: str | None


def read_question(body: bytes, content_type: str, predictors: Mapping[str, Predictor]) -> Question:
    """Check a request.

    Raises:
        ConfigurationError: the rule, what was given and how to fix it.
    """
    if content_type.partition(";")[0].strip().lower() != "application/json":
        refuse("Content-Type", "must be JSON", repr(short(content_type)), "send application/json", WHERE)
    given = read_object(body)
    predictor = predictors[named("model", given["model"], predictors)]
    layout = predictor.layouts[named("layout", given["layout"], predictor.layouts)]
    lexicon = given["lexicon"]
    if lexicon is not None:
        lexicon = named("lexicon", lexicon, predictor.tries)
    return Question(predictor, read_trace(given, layout), lexicon)


def read_object(body: bytes) -> dict[str, Any]:
    """The body as an object with the request's keys."""
    try:
        given = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise ConfigurationError(f"The body must be strict JSON; got {len(body)} bytes: {error}.") from None
    if not isinstance(given, dict):
        raise ConfigurationError(
            f"The body must be a JSON object; got {short(given)}: write its keys {', '.join(KEYS)}."
        )
    check_keys(map(short_text, given), KEYS, WHERE)
    for key in KEYS:
        if key not in given:
            refuse(key, "is required", f"the keys {sorted(given)}", "add it", WHERE)
    return given


def named(key: str, name: Any, known: Collection[str]) -> str:
    """A known name."""
    if not isinstance(name, str) or name not in known:
        refuse(key, "must be a known name", short(name), nearest_name(short_text(name), known), WHERE)
    return name


def read_trace(given: Mapping[str, Any], layout: Layout) -> Trace:
    """The points, within a keyboard's size of the keyboard, in order of time."""
    width, height = layout.size
    x = numbers("x", given["x"], -width, 2 * width)
    y = numbers("y", given["y"], -height, 2 * height)
    t = numbers("t", given["t"], 0, MAX_MILLISECONDS)
    if not len(x) == len(y) == len(t):
        lengths = f"{len(x)}, {len(y)} and {len(t)} numbers"
        raise ConfigurationError(
            f"Keys 'x', 'y' and 't' of {WHERE} must have equal lengths; got {lengths}: send one of each for each point."
        )
    fall = np.flatnonzero(np.diff(t) < 0)
    if len(fall):
        at = int(fall[0])
        refuse("t", "must not decrease", f"{t[at + 1]:g} after {t[at]:g}", "sort the points by time", WHERE)
    return Trace("", x.astype(np.float32), y.astype(np.float32), np.rint(t).astype(np.int32), layout.name)


def numbers(key: str, given: Any, lowest: float, highest: float) -> np.ndarray:
    """A list of numbers in a range, (points,) float64."""
    if not isinstance(given, list) or not 1 <= len(given) <= MAX_POINTS:
        found = f"{len(given)} of them" if isinstance(given, list) else short(given)
        refuse(key, f"must be a list of 1 to {MAX_POINTS} numbers", found, "send one number for each point", WHERE)
    for at, value in enumerate(given):
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(bounded(value)):
            refuse(key, "must have finite numbers", f"{short(value)} at {at}", "write a number", WHERE)
        if not lowest <= value <= highest:
            rule = f"must have numbers from {lowest:g} to {highest:g}"
            refuse(key, rule, f"{short(value)} at {at}", "leave out points far from the keyboard or too late", WHERE)
    return np.array(given, np.float64)


def bounded(value: float) -> float:
    """The number, or infinity if it is an integer that no float can hold."""
    try:
        return float(value)
    except OverflowError:
        return math.inf


def short(value: Any) -> str:
    """A value as a message shows it."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def short_text(value: Any) -> str:
    """A name as a message shows it."""
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
