"""Rules of the keys ``fsdp`` and ``fsdp_config``: a run whose model is sharded over processes by FSDP2."""

from collections.abc import Mapping
from typing import Any

from adapters import ConfigurationError
from adapters.validation import check_keys, refuse
from seq2seq.experiment import Experiment

WHERE = "the training arguments"
KEYS = (
    *("version", "reshard_after_forward", "auto_wrap_policy", "transformer_layer_cls_to_wrap", "min_num_params"),
    "cpu_offload",
)
"""The keys of ``fsdp_config``; transformers silently reads past others."""

WHOLE_MODEL = {
    "do_export": "python -m seq2seq.export reads the finished run",
    "measure_expressivity": "leave it out",
    "forgetting_file": "leave it out",
    "rank_schedule": "leave it out",
}
"""Keys of extras that read or change whole weights, each with what to do instead."""


def check_sharding(experiment: Experiment) -> None:
    """Refuse a sharded run with keys that do not go with shards.

    Raises:
        ConfigurationError: the first of them.
    """
    training = experiment.training
    config = training.get("fsdp_config")
    if not training.get("fsdp"):
        if config is not None:
            refuse("fsdp_config", "belongs to fsdp", repr(config), "set fsdp to true", WHERE)
        return
    check_config({} if config is None else config)
    if not training["do_train"]:
        refuse("fsdp", "shards a model that trains", "do_train false", "leave fsdp out: one process evaluates", WHERE)
    if training.get("torch_compile"):
        refuse("fsdp", "has not been tested with torch_compile", "both", "leave one of them out", WHERE)
    if len(tasks := experiment.workload.adapter_tasks) > 1:
        given = f"the tasks {', '.join(map(str, tasks))} with adapters of their own"
        refuse("fsdp", "needs batches that use the same weights in all processes", given, "share the adapters", WHERE)
    keys = {key: value for extra in experiment.extras for key, value in vars(extra).items()}
    for key, fix in WHOLE_MODEL.items():
        if keys.get(key):
            refuse(key, "needs the whole model in one process", "a model sharded by fsdp", fix, "the run")


def check_config(config: Mapping[str, Any] | Any) -> None:
    """Refuse what transformers would not read, and FSDP1."""
    if not isinstance(config, dict):
        raise ConfigurationError(
            f"Key 'fsdp_config' must be an object; got {config!r}: write for example {{\"cpu_offload\": true}}."
        )
    check_keys(config, KEYS, "the object fsdp_config")
    if config.get("version", 2) != 2:
        rule = "must be 2, as transformers is about to remove FSDP1"
        refuse("version", rule, config["version"], "leave it out", "the object fsdp_config")
