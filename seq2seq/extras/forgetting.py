"""Forgetting: the perplexity of a general text before and after training.

    "forgetting_file": "general.txt"

The perplexity before is that of the pretrained model without adapters. An adapter that answers a task well may have
made the model worse at everything else; a text that has nothing to do with the task shows it, as in PEFT's comparison
of methods. The text is read as the workload reads texts.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from adapters.validation import refuse
from seq2seq.experiment import Experiment, Extra
from seq2seq.run_folder import finite_metrics
from seq2seq.tasks.metric_names import metric_name
from seq2seq.workload import Prepared, Workload


@dataclass(frozen=True, kw_only=True)
class Forgetting(Extra):
    """Metrics of a general text before and after training.

    Args:
        forgetting_file: the text, in UTF-8; None for no such measurement.
    """

    forgetting_file: str | None = None

    @property
    def path(self) -> Path | None:
        """The file, with ~ as the home directory."""
        return None if self.forgetting_file is None else Path(self.forgetting_file).expanduser()

    def check(self, experiment: Experiment) -> None:
        if self.path is None:
            return
        if type(experiment.workload).score_text is Workload.score_text:
            given = f"the workload {experiment.workload.name!r}"
            refuse("forgetting_file", "needs a model that continues texts", given, "leave it out", "the run")
        if not os.path.isfile(self.path):
            refuse("forgetting_file", "names a file", repr(self.forgetting_file), "check the path", "the run")
        if len(tasks := experiment.workload.adapter_tasks) > 1:
            rule, given = "measures one model", f"the tasks {', '.join(map(str, tasks))} with adapters of their own"
            refuse("forgetting_file", rule, given, "leave it out, or share the adapters", "the run")

    def check_prepared(self, experiment: Experiment, prepared: Prepared) -> None:
        if self.path is not None:
            experiment.workload.check_text(prepared, self.path)

    def after(
        self, experiment: Experiment, prepared: Prepared, directory: Path, before: Any, earlier: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Measure the pretrained model and the trained one; what was measured before is kept."""
        if self.path is None or earlier.get("forgetting"):
            return {"forgetting": earlier.get("forgetting")}
        workload = experiment.workload
        models = {"before": replace(prepared, model=workload.load_model()), "after": prepared}
        return {
            "forgetting": {
                moment: finite_metrics(workload.score_text(model, self.path)) for moment, model in models.items()
            }
        }

    def is_satisfied_by(self, result: Mapping[str, Any]) -> bool:
        return self.forgetting_file is None or bool(result.get("forgetting"))

    def table_rows(self, experiment: Experiment, result: Mapping[str, Any]) -> list[list[str]]:
        """The first metric of the text, which is the workload's choice."""
        measured = result.get("forgetting")
        if not measured:
            return []
        name = next(iter(measured["before"]))
        before, after = (
            "not finite" if value is None else f"{value:.4f}"
            for value in (measured[moment].get(name) for moment in ("before", "after"))
        )
        return [[f"{metric_name(name)} of a general text", f"{before} before, {after} after training"]]
