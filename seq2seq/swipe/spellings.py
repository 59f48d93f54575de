"""What a model spells without a lexicon, as rows for a model of text that learns to correct it.

    python -m seq2seq.swipe.spellings outputs/swipe/demo outputs/swipe/spellings --traces 20000
    python run_seq2seq.py configs/swipe/corrector.json

Writes train.tsv, validation.tsv and test.tsv with the columns source, the greedy string, and target, the word, of
synthetic traces. Words are divided over the files as over the splits of the run, so that neither model was trained on
a word of the test. Exit status 2: the folder is not a finished run, or the destination is taken.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from adapters import ConfigurationError
from adapters.commands import exit_status
from adapters.saved.folder import create_folder
from seq2seq import SPLITS
from seq2seq.swipe.data import SwipeData
from seq2seq.swipe.finished import experiment_and_model
from seq2seq.swipe.keys import SwipeKeys
from seq2seq.swipe.rows import Rows, split_of
from seq2seq.swipe.traces.synthetic import synthetic_points
from seq2seq.workload import Prepared

EVALUATED = 10
"""A file of an evaluation has one row for so many of training."""

Pairs = list[tuple[str, str]]


def spellings(run: Path, traces: int, seed: int) -> dict[str, Pairs]:
    """The greedy string of each trace and its word, by split; traces of which a model reads nothing are left out.

    Args:
        run: the folder of a finished run.
        traces: of training; validation and test have a tenth each.
        seed: of words and traces.

    Raises:
        ConfigurationError: the folder has no finished run of the workload swipe.
    """
    if traces < EVALUATED:
        raise ConfigurationError(f"Option --traces is at least {EVALUATED}; got {traces}: 20000 is typical.")
    experiment, model = experiment_and_model(run)
    keys = experiment.workload
    rng = np.random.default_rng(seed)
    fixed = {split: drawn(keys, split, traces if split == "train" else traces // EVALUATED, rng) for split in SPLITS}
    data = SwipeData(replace(keys, augmentation=None, decoding=None), seed, fixed)
    with tempfile.TemporaryDirectory() as scratch:
        arguments = experiment.training_arguments()
        arguments.output_dir = scratch  # where a trainer makes a folder of checkpoints
        trainer = experiment.make_trainer(Prepared(model, data, arguments))
        said = {split: trainer.predicted(split) if trainer.is_ctc else None for split in SPLITS}
        found = {split: trainer.decoded(split, "greedy", 0.0, said[split]).candidates for split in SPLITS}
    return {
        split: [(c[0].word, word) for c, word in zip(found[split], fixed[split].words, strict=True) if c and c[0].word]
        for split in SPLITS
    }


def drawn(keys: SwipeKeys, split: str, count: int, rng: np.random.Generator) -> Rows:
    """Synthetic traces of random words of a split, on the layouts in turn."""
    words, layouts, points = [], [], []
    shares = np.array_split(np.arange(count), len(keys.layouts))
    for (name, layout), numbers in zip(keys.layouts.items(), shares, strict=True):
        own = [word for word in keys.words[name].words if split_of(word) == split]
        some = rng.choice(own, len(numbers)).tolist()
        words += some
        layouts += [name] * len(some)
        points += synthetic_points(some, layout, keys.config.rate, int(rng.integers(2**31)))
    return Rows(words, layouts, points, [*range(count)])


def write(folder: Path, pairs: dict[str, Pairs]) -> None:
    """Write a file for each split; the columns are source and target."""
    for split, rows in pairs.items():
        lines = ["source\ttarget", *("\t".join(row) for row in rows)]
        (folder / f"{split}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the files, print how many rows are wrong, and return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m seq2seq.swipe.spellings",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", type=Path, help="the folder of a finished run")
    parser.add_argument("destination", type=Path, help="a new or empty folder")
    parser.add_argument("--traces", type=int, default=20000, help="of training (default: 20000)")
    parser.add_argument("--seed", type=int, default=0, help="of words and traces (default: 0)")
    options = parser.parse_args(arguments)

    def make() -> None:
        pairs = spellings(options.run, options.traces, options.seed)
        create_folder(options.destination, lambda partial: write(partial, pairs))
        for split, rows in pairs.items():
            print(f"{split}: {len(rows)} rows, {sum(source == word for source, word in rows)} of them spelled right")

    return exit_status(make, options.destination)


if __name__ == "__main__":
    sys.exit(main())
