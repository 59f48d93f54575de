"""Memory that a model and a lexicon take: bytes of both, and by how much the resident memory of a process grows.

    python -m seq2seq.swipe.memory outputs/swipe_qwerty
    python -m seq2seq.swipe.memory outputs/swipe_qwerty --words 50000

A fresh process, whose imports are done and whose torch has one thread, loads the saved model, maps the lexicon, and
decodes 20 test traces one after the other by the run's beam. What is resident then and was not before is the growth:
the weights, the pages of the lexicon that were read, the beam, and the code of torch that the first decoding reads, the
larger part. The lexicon is of the most frequent words of the layout's language by wordfreq, also if the run has another
one, so that runs compare.

A run with the key ``memory_words`` measures the same, for a model of its sizes with random weights. Exit status 2: the
run cannot be measured.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

import seq2seq
from adapters import ConfigurationError
from adapters.tables import render_table
from seq2seq.swipe.finished import FinishedRun
from seq2seq.swipe.keyboards.boxes import boxes_of
from seq2seq.swipe.lexicon.trie import PackedTrie
from seq2seq.swipe.lexicon.words import Lexicon
from seq2seq.swipe.resident import LEXICON, MODEL, TRACES
from seq2seq.swipe.rows import Rows, load_rows
from seq2seq.swipe.traces.trace import padded

WORDS = 250_000
TRACES_DECODED = 20
PROCESS = (sys.executable, "-m", "seq2seq.swipe.resident")
SECONDS = 300
"""After which the process is given up."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table and return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m seq2seq.swipe.memory",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", type=Path, help="folder of a finished run")
    parser.add_argument("--words", type=int, default=WORDS, help=f"of the lexicon, {WORDS:,} by default")
    options = parser.parse_args(arguments)
    try:
        run = FinishedRun.open(options.run)
        run.check_merged()
        found = measured_memory(run, load_rows(run.keys)["test"], options.words)
    except ConfigurationError as error:
        print(f"Refused: {error}", file=sys.stderr)
        return 2
    print(render_table(f"Memory of {options.run}", ["", "MiB"], memory_rows(found)))
    return 0


def measured_memory(run: FinishedRun, rows: Rows, words: int = WORDS) -> dict[str, int]:
    """Measure a model on the layout of the first trace.

    Args:
        run: its model, keys and language weight.
        rows: traces, of which the first ones on this layout are decoded.
        words: of the lexicon.

    Returns:
        ``seq2seq.swipe.keys.MEMORY_METRICS``: bytes of the weights and of the lexicon, its words, and the bytes by
        which a process grows.

    Raises:
        ConfigurationError: wordfreq is missing or lacks the language, or the process failed.
    """
    path = os.pathsep.join([str(Path(seq2seq.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with tempfile.TemporaryDirectory() as scratch, subprocess.Popen(PROCESS, env=environment, **pipes) as process:
        try:
            trie = write_files(Path(scratch), run, rows, words)  # while the process imports
            request = {"folder": scratch, "beam": run.keys.options.beam, "language_weight": run.language_weight}
            output, errors = process.communicate(json.dumps(request) + "\n", timeout=SECONDS)
        except subprocess.TimeoutExpired as error:
            raise ConfigurationError(
                f"The process that measures memory ends in {SECONDS} seconds; it did not: try with an idle machine."
            ) from error
        finally:
            process.kill()
    if process.returncode:
        raise ConfigurationError(f"The process that measures memory failed: {last_line(errors)}")
    found = json.loads(output)
    tensors = [*run.model.parameters(), *run.model.buffers()]
    return {
        "model_bytes": sum(tensor.numel() * tensor.element_size() for tensor in tensors),
        "lexicon_bytes": trie.nbytes,
        "lexicon_words": len(trie),
        "resident_growth_bytes": found["after"] - found["before"],
    }


def write_files(folder: Path, run: FinishedRun, rows: Rows, words: int) -> PackedTrie:
    """Write what the process reads, and return the lexicon."""
    name, alphabet = rows.layouts[0], run.model.config.alphabet
    layout = run.keys.layouts[name]
    lexicon = Lexicon.from_wordfreq(run.keys.source.language or layout.language, words, layout)
    trie = PackedTrie.build(lexicon, alphabet)
    trie.save(folder / LEXICON)
    run.model.save_pretrained(folder / MODEL)
    chosen = [n for n, own in enumerate(rows.layouts) if own == name][:TRACES_DECODED]
    points, mask = padded([rows.points[n] for n in chosen])
    np.savez(folder / TRACES, points=points, lengths=mask.sum(1), boxes=boxes_of(layout, alphabet))
    return trie


def memory_rows(metrics: Mapping[str, float]) -> list[list[str]]:
    """What was measured, in MiB."""
    labels = ("model", f"lexicon of {metrics['lexicon_words']:,.0f} words", "growth of resident memory")
    names = ("model_bytes", "lexicon_bytes", "resident_growth_bytes")
    return [[label, f"{metrics[name] / 2**20:.1f}"] for label, name in zip(labels, names, strict=True)]


def last_line(text: str) -> str:
    """The last line that is not empty."""
    return next((line for line in reversed(text.splitlines()) if line.strip()), "")


if __name__ == "__main__":
    sys.exit(main())
