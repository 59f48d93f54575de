"""The log of a run: what is logged before its folder exists is held, and written first.

with held_records() as held: ...              prepare the run, which may be refused
with logging_to(folder.log, held): ...        run it
"""

import contextlib
import logging
import sys
from collections.abc import Iterator
from logging.handlers import MemoryHandler
from pathlib import Path

FLOORS = ("t3nsor", "adapters", "third_party", "seq2seq")
"""The packages of the project, whose records of level INFO are logged; of others, warnings are."""


@contextlib.contextmanager
def held_records() -> Iterator[MemoryHandler]:
    """Hold what is logged in the body."""
    held = MemoryHandler(capacity=sys.maxsize, flushLevel=sys.maxsize)
    logging.getLogger().addHandler(held)
    try:
        yield held
    finally:
        logging.getLogger().removeHandler(held)


@contextlib.contextmanager
def logging_to(path: Path, held: MemoryHandler) -> Iterator[None]:
    """Append the ``held`` records to a file, then what is logged in the body."""
    handler = logging.FileHandler(path)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    held.setTarget(handler)
    held.flush()
    levels = {name: logging.getLogger(name).level for name in FLOORS}
    for name in FLOORS:
        logging.getLogger(name).setLevel(logging.INFO)
    logging.getLogger().addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
        handler.close()
