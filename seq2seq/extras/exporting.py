"""Export: the trained model in the run folder, as folders of transformers.

    "do_export": true

    exported/       adapters merged, factorized weights dense: loads without this project
    factorized/     the same with its networks, if there are any: loads after ``import adapters``

The logits of the first folder, loaded again, are compared with those of the run's model.
"""

import copy
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

import adapters
from adapters.compiled import uncompiled
from adapters.factorized.folders import write_model
from adapters.factorized.layers import factorized_modules
from adapters.factorized.replacement import without_networks
from adapters.validation import refuse
from seq2seq.experiment import Experiment, Extra
from seq2seq.workload import Prepared, Workload

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
        if self.do_export and (place := adapters.unmergeable(prepared.model)):
            refuse("do_export", "merges the adapters, which must be linear", place, "set it to false", "the run")

    def after(
        self, experiment: Experiment, prepared: Prepared, directory: Path, before: Any, earlier: Mapping[str, Any]
    ) -> dict[str, Any]:
        """The largest difference of logits, as a share of the largest one."""
        if not self.do_export:
            return {"export": earlier.get("export")}
        result = None
        if prepared.is_main_process:
            plain = copy.deepcopy(uncompiled(prepared.model))
            plain = adapters.merge_and_unload(plain).cpu()
            tokenizer = getattr(prepared.data, "tokenizer", None)
            if factorized_modules(plain):
                shutil.rmtree(directory / FACTORIZED, ignore_errors=True)
                write_model(plain, tokenizer, directory / FACTORIZED)
            shutil.rmtree(directory / DENSE, ignore_errors=True)
            write_model(without_networks(plain), tokenizer, directory / DENSE)
            result = {"difference": difference(experiment.workload, prepared, directory / DENSE)}
        return {"export": result}

    def is_satisfied_by(self, result: Mapping[str, Any]) -> bool:
        return not self.do_export or bool(result.get("export"))

    def table_rows(self, experiment: Experiment, result: Mapping[str, Any]) -> list[list[str]]:
        if not result.get("export"):
            return []
        return [["exported against trained", f"{result['export']['difference']:.1e} of the largest logit"]]


@torch.no_grad()
def difference(workload: Workload, prepared: Prepared, folder: Path) -> float:
    """Largest difference of the logits of a folder to those of the run, as a share of the largest logit."""
    model = uncompiled(prepared.model)
    loaded = type(model).from_pretrained(folder, dtype=model.dtype).to(model.device)
    trainers = [workload.make_trainer(prepared), workload.make_trainer(replace(prepared, model=loaded))]
    largest = []
    for rows in workload.samples(prepared).values():
        sample = rows.take(min(SAMPLE_ROWS, len(rows)))
        one, other = (trainer.sample_logits(sample) for trainer in trainers)
        largest.append(float((one - other).abs().max() / one.abs().max()))
    return max(largest)
