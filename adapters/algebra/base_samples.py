"""Samples of base weights in the folders that are combined: one base is expected, and the sum keeps its sample.

native    "base_weights" in adapter_config.json    of the frozen base
tuner     base_weights.json                        of the adapted weights: comparable for the same linears only
"""

import contextlib
import json
import logging
from collections.abc import Collection, Hashable, Iterable
from pathlib import Path
from typing import Any

from adapters.algebra.peft_tensors import read_by_path
from adapters.saved.base_weights import FILE, KEY, differing_values
from adapters.saved.files import replace_file
from adapters.saved.folder import FolderKind, folder_kind, read_config

logger = logging.getLogger(__name__)


def warn_of_other_bases(directories: Iterable[Path]) -> None:
    """Log a warning for each folder whose sample differs from that of the first comparable one by more than casts."""
    first: dict[Hashable, tuple[Path, Any]] = {}
    for directory in directories:
        weights, sample = read_sample(directory)
        earlier, its_sample = first.setdefault(weights, (directory, sample))
        if count := differing_values(its_sample, sample):
            logger.warning(
                "Adapters of one base are added and compared; got %s, which was trained on a base with other weights "
                "than %s (%d sampled values differ): use adapters of one base.",
                directory,
                earlier,
                count,
            )


def read_sample(directory: Path) -> tuple[Hashable, Any]:
    """What weights the sample of a folder is taken from, and the sample; None if there is none or it is damaged."""
    config = read_config(directory)
    kind = folder_kind(config, directory)
    if kind is FolderKind.TUNER:
        with contextlib.suppress(OSError, ValueError, RecursionError):
            return frozenset(read_by_path(directory, kind)), json.loads((directory / FILE).read_text())
    return kind, config.get(KEY)


def tuner_sample(like: Path, paths: Collection[str]) -> Any:
    """The sample of a tuner's folder if it has deltas of exactly these linears, else None."""
    linears, sample = read_sample(like)
    return sample if linears == frozenset(paths) else None


def write_tuner_sample(directory: Path, sample: Any) -> None:
    """Write the sample beside an adapter of the tuner; None removes that of an adapter which was replaced."""
    if sample is None:
        (directory / FILE).unlink(missing_ok=True)
    else:
        replace_file(directory / FILE, lambda partial: partial.write_text(json.dumps(sample) + "\n"))
