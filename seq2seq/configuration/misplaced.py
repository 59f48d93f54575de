"""Keys that were written in the wrong object: rank=4 instead of adapter.rank=4, adapter.seed=1 instead of seed=1.

The right place is suggested; without it the nearest name in the wrong object would be.
"""

import contextlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any, get_args, get_type_hints

from adapters import AdapterConfig, ConfigurationError
from adapters.kinds.of_peft.types import FAMILY, PREFIX, config_class_of, unsupported_reason
from seq2seq.workload import Workload


def check_misplaced(values: Mapping[str, Any], known: Collection[str], workload: type[Workload]) -> None:
    """Refuse a key that belongs to an object of the configuration, or to the top level instead of an object.

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
            _check_above(key, values[key], places)
    for place, (own, kind) in places.items():
        for key in _at(values, place) or ():
            if key in known and key not in {*own, "kind"}:
                owner = f" of {kind!r}" if kind else ""
                raise ConfigurationError(
                    f"Key {key!r} belongs to the top level of the configuration; got it in {place}{owner}, which has "
                    f"no such key: write {key}=... beside {place.partition('[')[0]}."
                )


def _check_above(key: str, value: Any, places: Mapping[str, tuple[Collection[str], str | None]]) -> None:
    for place, (own, _) in places.items():
        if key in own:
            raise ConfigurationError(
                f"Key {key!r} belongs to the key {place!r}; got it at the top level of the configuration: "
                f"write {place}.{key}={_shown(value)}."
            )
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
        if isinstance(kind, str) and (kind.startswith(PREFIX) or kind in AdapterConfig.kinds):
            yield f"adapter[{index}]" if several else "adapter", (_fields_of_kind(kind), kind)
    for name, annotation in get_type_hints(workload).items():
        for cls in get_args(annotation):
            if is_dataclass(cls) and isinstance(values.get(name), dict):
                yield name, (_names(cls), None)


def _fields_of_kind(kind: str) -> Collection[str]:
    if not kind.startswith(PREFIX):
        return _names(AdapterConfig.kinds[kind])
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
