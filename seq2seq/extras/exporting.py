"""Export: the trained model in the run folder, as folders of transformers.

    "do_export": true

    exported/       adapters merged, factorized weights dense: loads without this project
    factorized/     the same with its networks, if there are any: loads after ``import adapters``

The logits of the first folder, loaded again, are compared with those of the run's model.
"""

import copy
import logging
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import transformers

import adapters
from adapters import MergeError
from adapters.compiled import uncompiled
from adapters.factorized.folders import write_model
from adapters.factorized.layers import factorized_modules
from adapters.factorized.replacement import without_networks
from adapters.validation import refuse
from seq2seq.experiment import Experiment, Extra
from seq2seq.workload import Prepared, Workload

logger = logging.getLogger(__name__)

DENSE, FACTORIZED = "exported", "factorized"
SAMPLE_ROWS = 8
"""Rows of each task whose logits are compared."""


@dataclass(frozen=True, kw_only=True)
class Export(Extra):
    """The trained model as folders of transformers.

    Args:
        do_export: whether they are written into the run folder.
    """

    do_export: bool = False

    @property
    def acts_alone(self) -> bool:
        return self.do_export

    def check(self, experiment: Experiment) -> None:
        if self.do_export and len(tasks := experiment.workload.adapter_tasks) > 1:
            rule, given = "writes one model", f"the tasks {', '.join(map(str, tasks))} with adapters of their own"
            refuse("do_export", rule, given, "use python -m seq2seq.export with --task", "the run")

    def check_prepared(self, experiment: Experiment, prepared: Prepared) -> None:
        if not self.do_export:
            return
        if place := adapters.unmergeable(prepared.model):
            refuse("do_export", "merges the adapters, which must be linear", place, "set it to false", "the run")
        for name in (DENSE, FACTORIZED):
            if (experiment.run.directory / name).is_file():
                given = f"a file {name!r} in {experiment.run.directory}"
                refuse("do_export", "writes folders into that of the run", given, "move it away", "the run")

    def after(
        self, experiment: Experiment, prepared: Prepared, directory: Path, before: Any, earlier: Mapping[str, Any]
    ) -> dict[str, Any]:
        """The largest difference of logits as a share of the largest one, or why nothing was written."""
        if not self.do_export:
            return {"export": earlier.get("export")}
        if not prepared.is_main_process:
            return {"export": None}
        for name in (DENSE, FACTORIZED):
            if (directory / name).exists():
                shutil.rmtree(directory / name)
        try:
            write_folders(prepared, directory)
        except MergeError as error:  # such as a bias that training has given to a module without one
            logger.warning("The model is not exported: %s", error)
            return {"export": {"difference": None, "reason": str(error)}}
        return {"export": {"difference": difference(experiment.workload, prepared, directory / DENSE)}}

    def is_satisfied_by(self, result: Mapping[str, Any]) -> bool:
        return not self.do_export or bool(result.get("export"))

    def table_rows(self, experiment: Experiment, result: Mapping[str, Any]) -> list[list[str]]:
        export = result.get("export")
        if not export:
            return []
        if export["difference"] is None:
            return [["exported", "not exported, see the log", export["reason"].rstrip(".")]]
        return [["exported against trained", f"{export['difference']:.1e} of the largest logit"]]


def write_folders(prepared: Prepared, directory: Path) -> None:
    """Write the folders of the model of a run.

    Raises:
        adapters.MergeError: it cannot be merged for good.
    """
    plain = adapters.merge_and_unload(copy.deepcopy(uncompiled(prepared.model))).cpu()
    if hasattr(plain.config, "use_cache"):
        plain.config.use_cache = type(plain.config)().use_cache  # which training has set to false
    tokenizer = getattr(prepared.data, "tokenizer", None)
    if factorized_modules(plain):
        write_model(plain, tokenizer, directory / FACTORIZED)
    write_model(without_networks(plain), tokenizer, directory / DENSE)


@torch.no_grad()
def difference(workload: Workload, prepared: Prepared, folder: Path) -> float:
    """Largest difference of the logits of a folder to those of the run, as a share of the largest logit.

    The folder is loaded by the class of transformers where there is one of this name.
    """
    model = uncompiled(prepared.model)
    plain_class = getattr(transformers, type(model).__name__, type(model))
    loaded = plain_class.from_pretrained(folder, dtype=model.dtype).to(model.device)
    trainers = [workload.make_trainer(prepared), workload.make_trainer(replace(prepared, model=loaded))]
    largest = []
    for rows in workload.samples(prepared).values():
        sample = rows.take(min(SAMPLE_ROWS, len(rows)))
        one, other = (trainer.sample_logits(sample) for trainer in trainers)
        largest.append(float((one - other).abs().max() / one.abs().max()))
    return max(largest)
