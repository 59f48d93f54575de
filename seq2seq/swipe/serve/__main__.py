"""A page to swipe on, served by this machine.

    python -m seq2seq.swipe.serve outputs/swipe/demo
    python -m seq2seq.swipe.serve outputs/swipe/* --port 8100 --lexicon my_words.txt

Serves the models of runs, with their layouts and lexicons, on the loopback device; --host lends it to a network, where
everyone who reaches it can use it. Exit status 2: a folder is not a finished run of the workload swipe, or the address
is taken.
"""

import argparse
import os
import sys
from pathlib import Path

import uvicorn

from adapters import ConfigurationError
from seq2seq.swipe.predictor import Predictor
from seq2seq.swipe.serve.address import as_in_url, listen
from seq2seq.swipe.serve.app import make_app


def main(arguments: list[str] | None = None) -> int:
    """Serve until interrupted, and return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m seq2seq.swipe.serve", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="the folder of a run")
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, default=8000, help="0 takes a free one (default: 8000)")
    parser.add_argument(
        "--lexicon",
        nargs="+",
        default=(),
        type=Path,
        metavar="FILE",
        help='more words to choose: lines "word<TAB>count"',
    )
    options = parser.parse_args(arguments)
    try:
        predictors = {name: Predictor.from_run(run) for name, run in names_of(options.runs).items()}
        for predictor in predictors.values():
            for path in options.lexicon:
                predictor.add_lexicon(path)
        listening = listen(options.host, options.port)
    except ConfigurationError as error:
        print(f"Refused: {error}", file=sys.stderr)
        return 2
    with listening:
        print(f"Swipe on http://{as_in_url(options.host)}:{listening.getsockname()[1]}", flush=True)
        config = uvicorn.Config(make_app(predictors, options.host), log_level="warning", server_header=False)
        uvicorn.Server(config).run(sockets=[listening])
    return 0


def names_of(runs: list[Path]) -> dict[str, Path]:
    """Short names of runs: the parts of their paths behind the folder that they share."""
    paths = list(dict.fromkeys(run.resolve() for run in runs))
    if len(paths) == 1:
        return {paths[0].name: paths[0]}
    shared = Path(os.path.commonpath(paths))
    return {path.relative_to(shared).as_posix(): path for path in paths}


if __name__ == "__main__":
    sys.exit(main())
