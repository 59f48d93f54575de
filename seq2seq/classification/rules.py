"""Rules of a classification run's keys beyond those of tasks; each violation is one sentence."""

from collections.abc import Mapping, Sequence
from typing import Any

from adapters import AdapterConfig, ConfigurationError
from adapters.validation import refuse
from seq2seq.classification.keys import ClassificationKeys
from seq2seq.tasks.registry import TASKS
from seq2seq.tasks.rules import check_tasks
from seq2seq.tasks.task_spec import TaskSpec

WHERE = "the workload 'classification'"


def check_classification(
    keys: ClassificationKeys, configs: Sequence[AdapterConfig], training: Mapping[str, Any]
) -> None:
    """Refuse tasks without labels, labels that are not classes, and a head that cannot be as it is asked for."""
    check_tasks(keys, configs, training)
    for spec in keys.specs:
        check_task(keys, spec)
    numbers = [spec.name for spec in keys.specs if spec.is_number]
    if 0 < len(numbers) < len(keys.specs):
        others = next(spec.name for spec in keys.specs if not spec.is_number)
        given = f"{numbers[0]!r}, whose answers are numbers, and {others!r}"
        refuse("mixture", "has tasks with labels or tasks with numbers, for one head", given, "drop one", WHERE)
    if numbers and training.get("label_smoothing_factor"):
        given = training["label_smoothing_factor"]
        refuse("label_smoothing_factor", "is 0 for answers that are numbers", given, "leave it out", WHERE)
    trains_head = next((config.kind for config in configs if config.kind in ("none", "head")), None)
    if keys.head == "frozen" and trains_head is not None:
        given = f"'frozen' with the adapter kind {trains_head!r}"
        refuse("head", "is 'trained' if a kind trains it", given, "leave it out, or choose another kind", WHERE)
    if keys.labels is not None:
        check_labels(keys)


def check_task(keys: ClassificationKeys, spec: TaskSpec) -> None:
    """Refuse a task whose rows are not a text or a pair of texts with a label or a number."""
    is_own = not keys.task_names
    if is_own or (spec.texts and (spec.labels is not None or spec.is_number)):
        return
    reason = (
        "whose answers are free text" if spec.texts else "whose rows are not a text or a pair of texts with a label"
    )
    possible = ", ".join(name for name, task in TASKS.items() if task.texts and task.labels is not None)
    raise ConfigurationError(
        f"A task of {WHERE} has a text or a pair of texts, and a label or a number; got {spec.name!r}, {reason}: "
        f'choose one of {possible}, describe your own under the key \'tasks\', or write "workload": "text".'
    )


def check_labels(keys: ClassificationKeys) -> None:
    """Refuse labels that are not those of your own files, or not two or more."""
    if keys.task_names:
        given = f"{list(keys.labels)} with the task {keys.task_names[0]!r}, which has its own"
        refuse("labels", "lists the classes of your own files", given, "leave it out", WHERE)
    if len(keys.labels) < 2 or len(set(keys.labels)) < len(keys.labels):
        refuse("labels", "has two or more labels, each once", list(keys.labels), "correct the list", WHERE)
