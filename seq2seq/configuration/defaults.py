"""The training arguments of a run that does not give them, as far as transformers' own defaults do not fit.

Some depend on what is there: without rows to validate on there is no evaluation and no choice of a checkpoint, and a
saved adapter without rows to train on is evaluated only.
"""

from collections.abc import Mapping
from typing import Any

from transformers import TrainingArguments

from seq2seq.experiment import RunArguments
from seq2seq.workload import Workload

TRAINING_DEFAULTS: dict[str, Any] = {
    "seed": 42,
    "do_train": True,
    "do_eval": True,
    "do_predict": True,
    "learning_rate": 1e-3,  # adapters need more than the 5e-5 of full fine-tuning
    "per_device_train_batch_size": 32,
    "per_device_eval_batch_size": 128,
    "eval_strategy": "epoch",
    "save_strategy": "epoch",
    "save_total_limit": 2,  # the best and the newest
    "logging_steps": 20,
    "logging_first_step": True,  # log step 1 too
    "load_best_model_at_end": True,
    "metric_for_best_model": "average_metrics",
    "report_to": "none",
}


def with_training_defaults(values: Mapping[str, Any], run: RunArguments, workload: Workload) -> dict[str, Any]:
    """``values`` with the defaults of the training arguments that are not among them."""
    splits = workload.splits
    has_validation = "validation" in splits
    eval_strategy = values.get("eval_strategy", TRAINING_DEFAULTS["eval_strategy"]) if has_validation else "no"
    depending = {
        "do_train": "train" in splits or run.adapter_path is None,
        "do_eval": has_validation,
        "do_predict": "test" in splits,
        "eval_strategy": eval_strategy,
        "save_strategy": eval_strategy if eval_strategy in ("steps", "epoch") else TRAINING_DEFAULTS["save_strategy"],
        "load_best_model_at_end": eval_strategy != "no",
    }
    every = values.get("eval_steps")
    if eval_strategy == "steps" and isinstance(every, int) and every > 0 and TrainingArguments.save_steps % every:
        depending["save_steps"] = every  # the best checkpoint can be loaded only if each was evaluated
    if not has_validation:
        values = {key: value for key, value in values.items() if key != "eval_strategy"}
    return {**TRAINING_DEFAULTS, **depending, **values}
