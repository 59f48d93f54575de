"""Keys of another name or in another place: lr instead of learning_rate, rank=4 instead of adapter.rank=4.

What is meant is suggested; without this the nearest name in the wrong object would be.
"""

import contextlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any, get_args, get_type_hints

from adapters import AdapterConfig, ConfigurationError
from adapters.kinds.of_peft.types import FAMILY, PREFIX, config_class_of, unsupported_reason
from seq2seq.workload import Workload

MEANT = {
    "alpha": "adapter.scaling, which is PEFT's lora_alpha / r",
    "batch_size": "per_device_train_batch_size",
    "epochs": "num_train_epochs",
    "group_by_length": "train_sampling_strategy, which may be group_by_length",
    "kind": "adapter.kind",
    "lora_alpha": "adapter.scaling, which is PEFT's lora_alpha / r",
    "lora_dropout": "adapter.dropout",
    "lr": "learning_rate",
    "metric": "metric_for_best_model",
    "name": "experiment_name",
    "optimizer": "optim",
    "peft_type": "adapter.kind, which is peft:<TYPE> for methods of PEFT",
    "r": "adapter.rank",
    "scheduler": "lr_scheduler_type",
    "wandb": "log_to_wandb",
    "warmup": "warmup_steps",
}
"""Other names of keys of every run, and what is meant; those of a workload's keys are its ``other_names``."""

MEANT_IN_ADAPTER = {"r": "rank", "lora_alpha": "scaling", "lora_dropout": "dropout", "alpha": "scaling"}
"""Names that PEFT gives to fields of adapters."""


def check_misplaced(values: Mapping[str, Any], known: Collection[str], workload: type[Workload]) -> None:
    """Refuse a key of another name, or that belongs to an object of the configuration, or to its top level.

    Args:
        values: the configuration.
        known: the keys of its top level.
        workload: the run's workload.

    Raises:
        ConfigurationError: the key, and where it belongs.
    """
    places = dict(_places(values, workload))
    for key in values:
        if key not in known:
            _check_above(key, values[key], places, MEANT | workload.other_names)
    for place, (own, kind) in places.items():
        for key in _at(values, place) or ():
            meant = MEANT_IN_ADAPTER.get(key) if kind else None
            if key not in own and meant in own:
                formula = ", which is lora_alpha / r" if meant == "scaling" else ""
                raise ConfigurationError(
                    f"Key {key!r} is PEFT's; got it in {place} of {kind!r}: write {place}.{meant}{formula}."
                )
            if key in known and key not in {*own, "kind"}:
                owner = f" of {kind!r}" if kind else ""
                raise ConfigurationError(
                    f"Key {key!r} belongs to the top level of the configuration; got it in {place}{owner}, which has "
                    f"no such key: write {key}=... beside {place.partition('[')[0]}."
                )


def _check_above(
    key: str, value: Any, places: Mapping[str, tuple[Collection[str], str | None]], meant: Mapping[str, str]
) -> None:
    for place, (own, _) in places.items():
        if key in own:
            raise ConfigurationError(
                f"Key {key!r} belongs to the key {place!r}; got it at the top level of the configuration: "
                f"write {place}.{key}={_shown(value)}."
            )
    if key in meant:
        raise ConfigurationError(f"The configuration takes known keys only; got {key!r}: write {meant[key]}.")
    kinds = [name for name, cls in AdapterConfig.kinds.items() if name != FAMILY and key in _names(cls)]
    if kinds:
        given = next((kind for _, kind in places.values() if kind), None)
        raise ConfigurationError(
            f"Key {key!r} belongs to an adapter of kind {' or '.join(kinds)}; got it at the top level of the "
            f"configuration with {f'the kind {given!r}' if given else 'no adapter'}: set adapter.kind and "
            f"adapter.{key}."
        )


def _places(
    values: Mapping[str, Any], workload: type[Workload]
) -> Iterator[tuple[str, tuple[Collection[str], str | None]]]:
    """Each object of the configuration: its dotted name, its keys, and its kind if it is an adapter."""
    adapter = values.get("adapter")
    several = isinstance(adapter, list)
    for index, entry in enumerate(adapter if several else [adapter]):
        kind = entry.get("kind") if isinstance(entry, dict) else None
        if isinstance(kind, str):
            yield f"adapter[{index}]" if several else "adapter", (_fields_of_kind(kind), kind)
    for name, annotation in get_type_hints(workload).items():
        for cls in get_args(annotation):
            if is_dataclass(cls) and isinstance(values.get(name), dict):
                yield name, (_names(cls), None)


def _fields_of_kind(kind: str) -> Collection[str]:
    if not kind.startswith(PREFIX):
        return _names(AdapterConfig.kinds[kind]) if kind in AdapterConfig.kinds else ()
    with contextlib.suppress(ConfigurationError):  # which is raised again when the adapter is read
        options = fields(config_class_of(kind.removeprefix(PREFIX)))
        return {"stacks", "layers", *(option.name for option in options if not unsupported_reason(option.name))}
    return ()


def _names(cls: type) -> Collection[str]:
    return [field.name for field in fields(cls)]


def _at(values: Mapping[str, Any], place: str) -> Mapping[str, Any] | None:
    name, _, index = place.removesuffix("]").partition("[")
    return values[name][int(index)] if index else values.get(name)


def _shown(value: Any) -> str:
    return "..." if isinstance(value, dict | list) else str(value).lower() if isinstance(value, bool) else str(value)
