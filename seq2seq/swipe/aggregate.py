r"""Combine the predictions of several runs into one ranking.

    python -m seq2seq.swipe.aggregate weighted outputs/swipe_a outputs/swipe_b --output outputs/swipe_ensemble
    python -m seq2seq.swipe.aggregate append outputs/swipe_a outputs/swipe_b --output outputs/swipe_appended

The weights of an ensemble are fitted on one split (--fit, validation) and applied to another (--apply, test); both are
written, as predictions that ``seq2seq.swipe.evaluate`` reads. All runs have predictions of the same rows of both.

append      the candidates of the run with the best swipe MRR, then those of the next run that are not there yet, ...
weighted    a mixture, :math:`p(w) = \sum_m \pi_m p_m(w)`, of each run's probabilities, normalised over its candidates;
            the weights :math:`\pi` have the largest likelihood of the words of the split (expectation maximisation)

Exit status 2: the predictions cannot be combined.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from adapters import ConfigurationError
from seq2seq.swipe.evaluate import metrics_table
from seq2seq.swipe.metrics import Row, paired, scores
from seq2seq.swipe.predictions import Predictions, read_predictions, write_predictions

STEPS = 500
"""Steps of expectation maximisation: the likelihood is concave in the weights, and two runs need some tens."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the ensemble, print its metrics beside those of its members, and return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m seq2seq.swipe.aggregate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("kind", choices=KINDS, help="how candidates are combined")
    parser.add_argument("runs", type=Path, nargs="+", help="folders with predictions of both splits, or their files")
    parser.add_argument("--output", type=Path, required=True, help="folder to write")
    parser.add_argument("--fit", default="validation", metavar="SPLIT", help="(default: validation)")
    parser.add_argument("--apply", default="test", metavar="SPLIT", help="(default: test)")
    parser.add_argument("--candidates", type=int, default=4, help="the most candidates of a row (default: 4)")
    options = parser.parse_args(arguments)
    try:
        tables = read_predictions(options.runs)
        written = aggregate(tables, options.kind, options.output, options.fit, options.apply, options.candidates)
        print(metrics_table([table for table in tables if table.split == options.apply] + written[-1:]))
        print(f"\nWritten to {options.output}")
    except ConfigurationError as error:
        print(f"Refused: {error}", file=sys.stderr)
        return 2
    return 0


def aggregate(
    tables: Sequence[Predictions], kind: str, output: Path, fit: str = "validation", apply: str = "test", count: int = 4
) -> list[Predictions]:
    """Fit an ensemble on one split, and write its predictions of that split and of another.

    Args:
        tables: of at least two runs, for both splits.
        kind: "append" or "weighted".
        count: the most candidates of a row.

    Raises:
        ConfigurationError: a run lacks a split, or has other rows of it than the others; or ``output`` is taken.
    """
    if count < 1:
        raise ConfigurationError(f"Option --candidates is at least 1; got {count}: 4 is what a keyboard shows.")
    members = members_of(tables, (fit, apply))
    fitting, combine = KINDS[kind]
    weights = fitting(paired([member[fit].rows for member in members]))
    configuration = {
        "ensemble": kind,
        "fit": fit,
        "candidates": count,
        "members": [
            {"name": member[fit].name, "key": member[fit].key, "weight": round(float(weight), 6)}
            for member, weight in zip(members, weights, strict=True)
        ],
    }
    written = []
    for split in dict.fromkeys((fit, apply)):
        of_members = paired([member[split].rows for member in members])
        rows = [_combined(row, combine(row, weights)[:count]) for row in zip(*of_members, strict=True)]
        path = write_predictions(output, split, configuration, rows)
        written.append(Predictions(output.name, split, configuration, rows, (path,)))
    return written


def members_of(tables: Sequence[Predictions], splits: Sequence[str]) -> list[dict[str, Predictions]]:
    """The tables of each run by split, sorted by the digest of its configuration."""
    runs: dict[str, dict[str, Predictions]] = {}
    for table in tables:
        runs.setdefault(table.key, {})[table.split] = table
    if len(runs) < 2:
        raise ConfigurationError(f"An ensemble combines at least two runs; got {len(runs)}: name more folders.")
    for run in runs.values():
        for split in splits:
            if split not in run:
                first = next(iter(run.values()))
                raise ConfigurationError(
                    f"Members of an ensemble have predictions of {' and '.join(splits)}; got {first.name} with "
                    f"{', '.join(sorted(run))}: let it predict {split}."
                )
    return [runs[key] for key in sorted(runs)]


def order_weights(tables: Sequence[Sequence[Row]]) -> np.ndarray:
    """The swipe MRR of each table, by which appended runs are ordered."""
    return np.array([scores(table)["swipe_mrr"] for table in tables])


def mixture_weights(tables: Sequence[Sequence[Row]]) -> np.ndarray:
    """The weights of the likeliest mixture (tables,), by expectation maximisation from equal ones.

    Rows whose word is no candidate of any table say nothing.
    """
    likelihoods = np.array([[dict(probabilities(row)).get(row["word"], 0.0) for row in table] for table in tables])
    likelihoods = likelihoods[:, likelihoods.any(axis=0)]  # (tables, rows)
    weights = np.full(len(tables), 1 / len(tables))
    for _ in range(STEPS if likelihoods.size else 0):
        shares = weights[:, None] * likelihoods
        weights = (shares / shares.sum(0)).mean(1)
    return weights


def probabilities(row: Row) -> list[tuple[str, float]]:
    """The words of a row and their probabilities, which sum to 1 over its candidates."""
    if not row["candidates"]:
        return []
    words, logits = zip(*row["candidates"], strict=True)
    values = np.exp(np.array(logits) - np.logaddexp.reduce(logits))
    return list(zip(words, values.tolist(), strict=True))


def mixture(rows: Sequence[Row], weights: np.ndarray) -> list[tuple[str, float]]:
    """Words and log-probabilities of the mixture of some predictions of one row."""
    total: dict[str, float] = {}
    for row, weight in zip(rows, weights, strict=True):
        for word, value in probabilities(row):
            total[word] = total.get(word, 0.0) + weight * value
    ranked = sorted(total.items(), key=lambda item: (-item[1], item[0]))
    return [(word, float(np.log(value))) for word, value in ranked if value > 0]


def appended(rows: Sequence[Row], weights: np.ndarray) -> list[tuple[str, float]]:
    """The candidates of all predictions of one row, those of the largest weight first, without repetitions.

    A log-probability is at most that of the candidate before, so that the list stays a ranking.
    """
    found: dict[str, float] = {}
    for place in np.argsort(-weights, kind="stable"):
        for word, value in rows[place]["candidates"]:
            found.setdefault(word, min([value, *list(found.values())[-1:]]))
    return list(found.items())


def _combined(rows: Sequence[Row], candidates: Sequence[tuple[str, float]]) -> dict[str, Any]:
    return {**{key: rows[0][key] for key in ("index", "word", "layout")}, "candidates": [*candidates]}


KINDS: dict[str, tuple[Callable[..., np.ndarray], Callable[..., list[tuple[str, float]]]]] = {
    "append": (order_weights, appended),
    "weighted": (mixture_weights, mixture),
}
"""How the weights of runs are fitted to tables, and how predictions of a row are combined with them."""


if __name__ == "__main__":
    sys.exit(main())
