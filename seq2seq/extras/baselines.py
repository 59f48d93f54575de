"""Baselines: a result is meaningful only if it beats all of them.

    frozen_backbone    the pretrained model without an adapter; with a head of its own, only that is trained
    random_backbone    the same adapter trained in the same way in a backbone that was never trained
    and those of the workload, for text: majority, bag_of_words

A new baseline is one function, and one line here or in the workload's ``baselines``.
"""

import copy
import logging
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from adapters import ConfigurationError
from adapters.validation import nearest_name, refuse
from seq2seq.experiment import Experiment, Extra
from seq2seq.run_folder import finite_metrics, read_earlier, write_json
from seq2seq.tasks.metric_names import metric_name
from seq2seq.workload import Baseline, Prepared
from third_party.trainers import AdapterTrainerMixin

logger = logging.getLogger(__name__)

FILE = "baselines.json"
WHERE = "the run"


@dataclass(frozen=True, kw_only=True)
class Baselines(Extra):
    """Metrics of each baseline on the test split, or on the validation split if there is no test split.

    Args:
        baselines: their names.
    """

    baselines: tuple[str, ...] = ()

    def check(self, experiment: Experiment) -> None:
        known = baselines_of(experiment)
        for name in self.baselines:
            if name not in known:
                refuse("baselines", "names baselines of the workload", repr(name), nearest_name(name, known), WHERE)
            if known[name].unsupported is not None:
                fix = f"leave it out, because {known[name].unsupported}"
                refuse("baselines", f"has no {name} here", list(self.baselines), fix, WHERE)
        if len(set(self.baselines)) < len(self.baselines):
            refuse("baselines", "names each baseline once", list(self.baselines), "drop the repeated one", WHERE)
        splits = experiment.workload.splits
        if self.baselines and not ("train" in splits and {"validation", "test"} & {*splits}):
            given = f"rows of {sorted(splits)}"
            files = " and ".join(experiment.workload.split_keys.get(split, split) for split in ("train", "test"))
            refuse("baselines", "needs rows to train and to measure on", given, f"give {files}, or leave it out", WHERE)

    def after(
        self, experiment: Experiment, prepared: Prepared, directory: Path, before: Any, earlier: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Measure the requested baselines; those measured before are kept."""
        path = directory / FILE
        found = {name: metrics for name, metrics in read_earlier(path, dict).items() if isinstance(metrics, dict)}
        split = "test" if "test" in experiment.workload.splits else "validation"
        for name in self.baselines:
            if name not in found:
                logger.info("Measuring the baseline %s.", name)
                found[name] = finite_metrics(baselines_of(experiment)[name].measure(prepared, split))
                if prepared.is_main_process:
                    write_json(path, found)
        return {"baselines": earlier.get("baselines", {}) | {name: found[name] for name in self.baselines}}

    def is_satisfied_by(self, result: Mapping[str, Any]) -> bool:
        return set(self.baselines) <= result.get("baselines", {}).keys()

    def table_rows(self, experiment: Experiment, result: Mapping[str, Any]) -> list[list[str]]:
        labels = {name: baseline.label for name, baseline in baselines_of(experiment).items()}
        rows = []
        for name, metrics in result.get("baselines", {}).items():
            headline = experiment.workload.headline(metrics)
            values = ", ".join(f"{metric_name(key)} {value}" for key, value in headline.items())
            notes = {note for key in headline if (note := experiment.workload.note(metrics, key)) is not None}
            own = experiment.workload.baseline_notes.get(name)
            rows.append([f"  {labels.get(name, name)}", values, *sorted(notes)[:1], *([own] if own else [])])
        return rows


def baselines_of(experiment: Experiment) -> dict[str, Baseline]:
    """The baselines that a run can have, by name."""
    return {
        **experiment.workload.baselines(),
        **{
            name: Baseline(label.format(trained_of(experiment)), partial(measure, experiment))
            for name, (label, measure) in OF_EVERY_WORKLOAD.items()
        },
    }


def trained_of(experiment: Experiment) -> str:
    """What is trained in a frozen backbone without the run's adapters, in words."""
    kinds = " and ".join(config.kind for config in experiment.workload.own_adapters)
    return f"trained {kinds}" if kinds else "no adapter"


def fits(extra: Extra, experiment: Experiment) -> bool:
    """Whether an extra goes with an experiment; a schedule of ranks needs adapters."""
    try:
        extra.check(experiment)
    except ConfigurationError:
        return False
    return True


def frozen_backbone(experiment: Experiment, prepared: Prepared, split: str) -> dict[str, float]:
    """The metrics of the pretrained model without the run's adapters; those of its workload are trained."""
    workload, alone = experiment.workload, replace(experiment, adapters=())
    if workload.own_adapters:
        return metrics_of_training(alone, prepared, split, "frozen_backbone")
    without_adapters = replace(prepared, model=alone.load_model())
    return workload.evaluate(without_adapters, workload.make_trainer(without_adapters), split).metrics


def random_backbone(experiment: Experiment, prepared: Prepared, split: str) -> dict[str, float]:
    """The metrics of the same adapter, trained and chosen in the same way, in a random model of the same shape."""
    return metrics_of_training(experiment, prepared, split, "random_backbone", random=True)


def metrics_of_training(
    experiment: Experiment, prepared: Prepared, split: str, name: str, random: bool = False
) -> dict[str, float]:
    """The metrics of another training of a run, as a baseline of this name."""
    workload = experiment.workload
    arguments = copy.copy(prepared.arguments)  # making another object would set up the processes again
    arguments.report_to = []
    untrained = replace(prepared, model=experiment.attach(experiment.load_model(random)), arguments=arguments)
    extras = [extra for extra in experiment.extras if fits(extra, experiment)]
    callbacks = [callback for extra in extras for callback in extra.callbacks(None)]
    arguments.output_dir = str(Path(arguments.output_dir).with_name(name))  # one for all processes
    trainer = experiment.make_trainer(untrained, callbacks)
    trainer.label_progress(f"baseline, {name.replace('_', ' ')}")
    remove_together(trainer)  # a killed run leaves its checkpoints, which would be rotated with the new ones
    trainer.train()
    metrics = workload.evaluate(untrained, trainer, split).metrics
    remove_together(trainer)
    return metrics


OF_EVERY_WORKLOAD = {
    "frozen_backbone": ("frozen backbone, {}", frozen_backbone),
    "random_backbone": ("same adapter, random backbone", random_backbone),
}
"""Label, where {} is what is trained without the run's adapters, and function of the baselines of every workload."""


def remove_together(trainer: AdapterTrainerMixin) -> None:
    """Remove the trainer's folder, while no other process reads or writes it."""
    trainer.accelerator.wait_for_everyone()
    if trainer.is_world_process_zero():
        shutil.rmtree(trainer.args.output_dir, ignore_errors=True)
    trainer.accelerator.wait_for_everyone()
