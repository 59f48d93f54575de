"""Fits the writer of synthetic traces to real swipes.

    python -m seq2seq.swipe.traces.fit REAL.jsonl [--out writer.json] [--rounds 3]

Each swipe of the first half of the words (``realism.halves``) has a synthetic trace. What is minimised is the mean
distance of the quantiles of each measure of realism, in units of the distance between the real ones' 30 % and 70 %
quantiles, apart for short and long words, plus the mean distance of the rank correlations of the measures. The random
numbers are the same at each step, so that the objective is a function of the writer only, and Powell's method, which
needs no gradient, goes through the writer's values in turn.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, fields
from pathlib import Path

import numpy as np
from scipy.optimize import minimize
from scipy.stats import rankdata

from seq2seq.swipe.traces.realism import Swipe, halves, measures, real_swipes, synthetic_like
from seq2seq.swipe.traces.writer import FITTED, Writer, fitted_writer

MATCHED = np.array([0.05, 0.15, 0.3, 0.5, 0.7, 0.85, 0.95])
"""Quantiles."""

SHORT = 4
"""Letters of a short word, at most."""

REPEATS = 1
"""Synthetic traces of each swipe."""

BOUNDS = {
    "first_aim": (0.3, 3), "last_aim": (0.3, 3), "care_spread": (0, 1.5), "haste": (-1, 1),
    "overshoot": (-0.2, 0.2), "delay": (0, 0.6), "slope": (0, 0.4), "skew": (-0.95, 0.95), "lag": (0, 0.05),
    "lag_spread": (0, 1), "pause_slow": (-1, 1.5), "overlap": (-0.5, 0.9), "overlap_ahead": (-0.5, 0.5),
    "stroke_spread": (0, 0.8), "trace_spread": (0, 1), "pause_share": (0, 0.9), "pause_seconds": (0.005, 1),
    "pause_spread": (0, 1.5), "start_seconds": (0.002, 0.3), "start_spread": (0, 2), "start_cut": (0, 0.6),
    "start_share": (0, 1), "end_share": (0, 1), "end_seconds": (0.002, 0.3), "end_spread": (0, 2),
    "end_cut": (0, 0.6), "tremor": (0, 0.1), "tremor_rate": (1, 12),
}  # fmt: skip
"""The values that are tried of each field; between 0 and 0.5 for those that are not listed."""


class Mismatch:
    """How far synthetic traces are from the swipes, as a function of the writer."""

    def __init__(self, swipes: Sequence[Swipe]):
        self.swipes = swipes
        short = np.array([len(swipe.word) <= SHORT for swipe in swipes])
        self.groups = [group for group in (short, ~short) if group.any()]
        self.quantiles, self.correlations = self._summary(measures(swipes), 1)
        self.scale = [np.maximum(q[4] - q[2], 0.02) for q in self.quantiles]  # from 30 % to 70 %

    def _summary(self, found: np.ndarray, repeats: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
        parts = [found[np.tile(group, repeats)] for group in self.groups]
        return [np.quantile(part, MATCHED, axis=0) for part in parts], [_rank_correlations(part) for part in parts]

    def __call__(self, writer: Writer) -> float:
        drawn = [swipe for seed in range(REPEATS) for swipe in synthetic_like(self.swipes, seed, writer)]
        quantiles, correlations = self._summary(measures(drawn), REPEATS)
        apart = [abs(a - b) / s for a, b, s in zip(quantiles, self.quantiles, self.scale, strict=True)]
        turned = [abs(a - b) for a, b in zip(correlations, self.correlations, strict=True)]
        return float(np.mean(apart) + np.mean(turned))


def _rank_correlations(found: np.ndarray) -> np.ndarray:
    """Spearman's correlations of the columns (n, measures), 0 for a column that is constant."""
    ranks = rankdata(found, axis=0)
    ranks -= ranks.mean(0)
    ranks /= np.maximum(np.linalg.norm(ranks, axis=0), 1e-9)
    return ranks.T @ ranks


def fit(swipes: Sequence[Swipe], start: Writer, rounds: int) -> Iterator[tuple[Writer, float]]:
    """After each round, the writer whose traces are nearest to the swipes, and its mismatch."""
    names = [field.name for field in fields(Writer)]
    low, high = np.array([BOUNDS.get(name, (0.0, 0.5)) for name in names], float).T
    mismatch = Mismatch(swipes)

    def writer(values: np.ndarray) -> Writer:
        return Writer(**{n: round(float(v), 4) for n, v in zip(names, low + values * (high - low), strict=True)})

    values = np.clip((np.array([getattr(start, name) for name in names]) - low) / (high - low), 0, 1)
    directions = np.eye(len(names))
    for _ in range(rounds):
        found = minimize(
            lambda values: mismatch(writer(values)),
            values,
            method="Powell",
            bounds=[(0, 1)] * len(names),
            options={"maxiter": 1, "xtol": 0.02, "ftol": 1e-3, "direc": directions},
        )
        values, directions = found.x, found.direc
        yield writer(values), found.fun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("real", type=Path, help="jsonl of real swipes")
    parser.add_argument("--out", type=Path, default=FITTED, help="where the fitted values are written")
    parser.add_argument("--rounds", type=int, default=3, help="how often all values are gone through")
    given = parser.parse_args()
    swipes, bad = real_swipes(given.real)
    fitted_on, _ = halves(swipes)
    start = fitted_writer()
    print(
        f"{len(fitted_on)} swipes, {bad} bad ones left out of all; mismatch {Mismatch(fitted_on)(start):.4f}",
        flush=True,
    )
    for writer, mismatch in fit(fitted_on, start, given.rounds):
        print(f"mismatch {mismatch:.4f}", flush=True)
        given.out.write_text(json.dumps(asdict(writer), indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
