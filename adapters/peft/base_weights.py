"""A sample of the adapted base weights beside an adapter of the tuner: base_weights.json, as in ``adapters.saved``.

A configuration notes the base of each model that it adapts, and writes the sample if there was one base only; PEFT lets
one configuration adapt several models. A configuration that was read from a folder has the sample of its base, which is
compared with the model that the adapter is loaded into.
"""

import contextlib
import json
from pathlib import Path
from typing import Any

from torch import Tensor

from adapters.saved.base_weights import FILE, sample_of, warn_of_other_tensors
from adapters.saved.files import replace_file


class BaseWeightsMixin:
    """Mixin of ``TensorTrainConfig``."""

    def note_base(self, weights: list[Tensor]) -> None:
        """Note the weights that are adapted, unmerged; warn if an adapter from a folder was trained on others."""
        if (read := vars(self).get("_read_base")) is not None:
            warn_of_other_tensors(weights, *read)
        sample, noted = sample_of(weights), vars(self).setdefault("_noted_bases", [])
        if sample is not None and sample not in noted:
            noted.append(sample)

    def write_base(self, directory: Path) -> None:
        """Write the sample beside a saved adapter, or remove an earlier one if the base is not known."""
        path, noted = directory / FILE, vars(self).get("_noted_bases", [])
        if len(noted) == 1:
            replace_file(path, lambda partial: partial.write_text(json.dumps(noted[0]) + "\n"))
        else:
            path.unlink(missing_ok=True)

    def read_base(self, directory: Path) -> None:
        """Read the sample of a local folder, if it has one."""
        with contextlib.suppress(OSError, ValueError, RecursionError):
            self._read_base: tuple[Any, Path] = (json.loads((directory / FILE).read_text()), directory)
