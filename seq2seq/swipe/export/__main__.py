"""Export the model of a run for devices: ONNX in float32 and int8, with its layouts and lexicons.

    python -m seq2seq.swipe.export outputs/swipe_qwerty exported/qwerty
    python -m seq2seq.swipe.export outputs/swipe_qwerty exported/qwerty --rows 200

The folder loads alone, see ``seq2seq.swipe.export.folder``. The float32 graphs are compared with torch on random traces
of several lengths and refused if they differ. Both are scored on the first test traces of the run, with its beam and
lexicon, beside torch; differences have 95 % intervals of a paired bootstrap. Needs the extra [onnx]. Exit status 2: the
run cannot be exported.
"""

import argparse
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from adapters import ConfigurationError
from adapters.tables import render_table
from seq2seq.swipe.export.checks import largest_difference, on_graphs, predictions
from seq2seq.swipe.export.folder import Exported, file_of, write_folder
from seq2seq.swipe.export.graphs import PRECISIONS
from seq2seq.swipe.finished import FinishedRun
from seq2seq.swipe.metrics import Row, paired_differences, scores
from seq2seq.swipe.rows import load_rows

TOLERANCE = 1e-4
"""The largest difference of float32 graphs from torch, as a share of the largest output."""
ROWS = 500


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m seq2seq.swipe.export",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", type=Path, help="folder of a finished run")
    parser.add_argument("destination", metavar="DEST", type=Path, help="new folder to write")
    parser.add_argument("--rows", type=int, default=ROWS, help=f"test traces that are scored, {ROWS} by default")
    options = parser.parse_args(arguments)
    try:
        print(export(options.run, options.destination, options.rows))
    except ConfigurationError as error:
        print(f"Refused: {error}", file=sys.stderr)
        return 2
    return 0


def export(folder: Path, destination: Path, count: int = ROWS) -> str:
    """Write the folder of an export, and return the table of sizes, differences and accuracy.

    Args:
        folder: of a finished run.
        destination: a new or empty folder.
        count: how many test traces are scored.

    Raises:
        ConfigurationError: the run is not a finished one of swipe typing, onnx is missing, the destination holds
            something, or the graphs compute something else than the model; nothing is left behind then.
    """
    if count < 1:
        raise ConfigurationError(f"Option --rows is at least 1; got {count}: {ROWS} is typical.")
    run = FinishedRun.open(folder)
    run.check_merged()
    write_folder(run, destination)
    exported = {precision: Exported.open(destination, precision) for precision in PRECISIONS}
    differences = {precision: largest_difference(run.model, each) for precision, each in exported.items()}
    if not differences["float32"] <= TOLERANCE:
        shutil.rmtree(destination)
        raise ConfigurationError(
            f"The graphs of an export equal the model to {TOLERANCE:g} of its largest output; got a difference of "
            f"{differences['float32']:.2g}: try other versions of torch or onnxruntime."
        )
    rows, scored = load_rows(run.keys)["test"], {}
    models = {"torch": run.model, **{precision: on_graphs(run.model, each) for precision, each in exported.items()}}
    for name, model in models.items():
        scored[name] = predictions(model, rows, exported["float32"], run.keys.options.beam, run.language_weight, count)
    sizes = {precision: size_of(each, destination, precision) for precision, each in exported.items()}
    tensors = [*run.model.parameters(), *run.model.buffers()]
    sizes["torch"] = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    lexicons = sum(trie.nbytes for trie in exported["float32"].tries.values())
    return results_table(scored, sizes, differences, lexicons)


def size_of(exported: Exported, folder: Path, precision: str) -> int:
    """Bytes of the graphs."""
    return sum((folder / file_of(name, precision)).stat().st_size for name in exported.sessions)


def results_table(
    scored: Mapping[str, Sequence[Row]], sizes: Mapping[str, int], differences: Mapping[str, float], lexicons: int
) -> str:
    """A line for torch and each precision, and the size of the lexicons below."""
    cells = []
    for name, rows in scored.items():
        found = scores(rows)
        lost = paired_differences(scored["torch"], rows)["accuracy_1"] if name != "torch" else None
        cells.append(
            [
                name,
                f"{sizes[name] / 2**20:.2f}",
                f"{differences[name]:.1e}" if name in differences else "",
                f"{found['accuracy_1']:.4f}",
                f"{found['swipe_mrr']:.4f}",
                "" if lost is None else f"{lost.value:+.4f} ({lost.low:+.4f} to {lost.high:+.4f})",
            ]
        )
    title = f"Model with beam and lexicon on {len(scored['torch'])} test traces; lexicons of {lexicons / 2**20:.2f} MiB"
    header = ["model", "MiB", "largest difference", "top 1", "swipe MRR", "top 1 lost, 95 % interval"]
    return render_table(title, header, cells)


if __name__ == "__main__":
    sys.exit(main())
