"""What is random in a synthetic trace, and the values fitted to real swipes."""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from adapters.validation import from_json

FITTED = Path(__file__).with_name("writer.json")
"""Written by ``python -m seq2seq.swipe.traces.fit``. It has no row of the swipes that it was fitted to."""


@dataclass(frozen=True)
class Writer:
    """How hands differ from an exact one, which draws straight strokes through the centres and is the default.

    Args:
        aim_x, aim_y: standard deviation of the aim at a key, as a share of the key's width and height.
        first_aim, last_aim: by how much that is larger at the first and last key.
        care_spread, haste: by how much that differs between traces: the standard deviation of its logarithm, and what
            share of the logarithm of a trace's speed is added.
        shift_x, shift_y: standard deviation of what all aims of a trace have in common.
        overshoot, overshoot_spread: mean and standard deviation of how far an aim lies behind its key in the direction
            of the stroke, as a share of the stroke.
        bow: standard deviation of the bow to the side, as a share of the stroke.
        delay, slope: seconds of a stroke, and of each doubling of its distance.
        trace_spread, stroke_spread: standard deviations of the logarithm of a stroke's seconds, of what the strokes
            of a trace have in common and of one stroke.
        skew: how much of a stroke's way is done early, between -1 and 1: time u becomes u + skew u (1 - u).
        overlap, overlap_trace, overlap_key: mean of the share of a stroke's time in which the next is under way, and
            its standard deviations between traces and between keys.
        overlap_ahead: what is added to it if the path goes straight on, and taken from it if it turns back.
        pause_share, pause_seconds, pause_spread: share of the inner keys at which the finger rests, the median time
            and the standard deviation of its logarithm.
        pause_slow: by how much slow traces rest more often, in standard deviations for each one of a trace's seconds.
        start_share, start_seconds, start_spread: share of the traces that begin with a rest, and the same of its time.
        start_cut: the others begin within this share of the first stroke's time, uniformly, as the finger lands in
            motion.
        end_share, end_seconds, end_spread, end_cut: the same at the end.
        lag, lag_spread: seconds between two looks of the screen at the finger, of which a point reports the latest: the
            median over traces, and the standard deviation of its logarithm.
        tremor, tremor_rate: amplitude of a swing of the whole trace in key widths, and its frequency in Hz.
    """

    aim_x: float = 0.0
    aim_y: float = 0.0
    first_aim: float = 1.0
    last_aim: float = 1.0
    care_spread: float = 0.0
    haste: float = 0.0
    shift_x: float = 0.0
    shift_y: float = 0.0
    overshoot: float = 0.0
    overshoot_spread: float = 0.0
    bow: float = 0.0
    delay: float = 0.1
    slope: float = 0.1
    trace_spread: float = 0.0
    stroke_spread: float = 0.0
    skew: float = 0.0
    overlap: float = 0.0
    overlap_trace: float = 0.0
    overlap_key: float = 0.0
    overlap_ahead: float = 0.0
    pause_share: float = 0.0
    pause_slow: float = 0.0
    pause_seconds: float = 0.0
    pause_spread: float = 0.0
    start_share: float = 1.0
    start_seconds: float = 0.0
    start_spread: float = 0.0
    start_cut: float = 0.0
    end_share: float = 1.0
    end_seconds: float = 0.0
    end_spread: float = 0.0
    end_cut: float = 0.0
    lag: float = 0.0
    lag_spread: float = 0.0
    tremor: float = 0.0
    tremor_rate: float = 5.0


@cache
def fitted_writer() -> Writer:
    """The writer that was fitted to real swipes on phones."""
    return from_json(Writer, json.loads(FITTED.read_text(encoding="utf-8")), f"the writer of {FITTED.name}")
