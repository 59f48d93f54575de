"""The names of methods: "tt_lora r4, shared middle core" has kinds, ranks, and the settings in which methods differ."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from adapters import AdapterConfig, ConfigurationError, FactorizedConfig
from seq2seq.report.settings import differing_keys, workload_of
from seq2seq.tasks.data_names import SPLIT_WORD

SETTING_NAMES = {
    "activation": "{}",
    "delta_bias": "{} bias",
    "core_activation": "{} between cores",
    "d": "{} cores",
    "dim": "dimension {}",
    "dtype": "{}",
    "format": "{}",
    "init": "{} start",
    "layers": "layers {}",
    "max_steps": "{} steps",
    "num_tokens": "{} tokens",
    "num_train_epochs": "{} epochs",
    "per_device_train_batch_size": "batches of {}",
    "shape_mode": "{} shape",
    "share_across": "shared across {}",
    "stacks": "in the {}",
    "sublayers": "in {}",
    "start": "{} start",
    "target_modules": "on {}",
    "whiten": "{} whitening",
}
"""Phrases for settings; those of other keys are "<key> <value>"."""

NEGATIONS = {"trainable": "frozen"}

CORES = {"shared_cores": "shared", "frozen_cores": "frozen", "disabled_cores": "disabled", "zero_core": "zero"}
"""Settings that list cores, with the word for such a core."""

UNNAMED_KEYS = ("rank", "r", "max_train_samples")
"""Keys whose values are shown elsewhere: in the kind's name (PEFT's rank is ``r``), in the table's heading."""


def method_labels(settings: Sequence[dict[str, Any]]) -> list[str]:
    """Name each method by its kinds and ranks, plus the settings that distinguish methods with equal names."""
    same_name = defaultdict(list)
    for one in settings:
        same_name[one.get("model_name_or_path"), short_label(one)].append(one)
    labels = []
    for one in settings:
        short = short_label(one)
        rivals = same_name[one.get("model_name_or_path"), short]
        keys = [key for key in differing_keys(rivals) if key.split(".")[-1] not in UNNAMED_KEYS]
        phrases = {key: describe_setting(key, one, rivals) for key in keys}
        chosen = [phrase for key, phrase in phrases.items() if phrase and not is_default(key, one)]
        labels.append(", ".join([short, *chosen]))
    return labels


def is_default(key: str, settings: dict[str, Any]) -> bool:
    """Whether a field of an adapter or a factorization has the value that it has by default beside the other fields."""
    prefix, _, name = key.rpartition(".")
    reads = {"adapter": AdapterConfig, "factorize": FactorizedConfig}.get(prefix.partition("[")[0])
    if reads is None:
        return False
    given = {other.removeprefix(f"{prefix}."): value for other, value in settings.items() if other.startswith(prefix)}
    try:
        default = reads.from_dict({other: value for other, value in given.items() if other != name})
    except ConfigurationError:
        return False
    return default.to_dict().get(name) == given.get(name)


def short_label(settings: dict[str, Any]) -> str:
    """Format kinds and ranks, for example "tt_lora r4 + layer_norm"."""
    factorized = [value for key, value in settings.items() if key.startswith("factorize") and key.endswith("format")]
    networks = " and ".join(str(name).replace("_", " ") for name in dict.fromkeys(factorized))
    parts = []
    full = "everything trains" if factorized else workload_of(settings).untuned_name
    for key, kind in settings.items():
        if key.startswith("adapter") and key.endswith("kind"):
            rank = rank_of(settings, key.removesuffix("kind"))
            name = full if kind == "none" else kind
            parts.append(name if rank is None else f"{name} r{compact(rank)}")
    mixed = ["in a mixture"] if any(key.startswith("mixture.") for key in settings) else []
    return " ".join([", ".join(filter(None, [networks, " + ".join(parts)])), *mixed])


def rank_of(settings: Mapping[str, Any], prefix: str) -> int | list[int] | None:
    """The rank of the adapter whose keys begin with ``prefix``; PEFT calls it ``r``."""
    return settings.get(f"{prefix}rank", settings.get(f"{prefix}r"))


def describe_setting(key: str, settings: dict[str, Any], rivals: Sequence[dict[str, Any]]) -> str:
    """A phrase for one setting of a method; empty for one that is absent, an empty list, or a file called "train".

    Args:
        key: the dotted key.
        settings: those of the method.
        rivals: those of all methods from which the phrase must distinguish it.
    """
    value, name = settings.get(key), key.split(".")[-1]
    if value is None or value == []:
        return ""
    if name in CORES:
        return describe_cores(CORES[name], value, settings.get(key.removesuffix(name) + "d"))
    words = name.replace("_", " ")
    if name.endswith("_file"):
        value = distinct_part(key, value, rivals)
        return f"{words.removesuffix(' file').replace('train', 'trained')} on {value}" if value else ""
    if isinstance(value, bool):
        return words if value else NEGATIONS.get(name, f"not {words}")
    if isinstance(value, str) and any("/" in str(rival.get(key, "")) for rival in rivals):
        words, value = words.removesuffix(" name or path"), distinct_part(key, value, rivals)
    text = compact(value).replace("_", " ") if name in ("format", "sublayers", "share_across") else compact(value)
    phrases = {**SETTING_NAMES, **workload_of(settings).setting_names}
    return phrases[name].format(text) if name in phrases else f"{words} {text}"


def describe_cores(word: str, value: int | Sequence[int], d: int | None) -> str:
    """Such as "shared middle core" or "frozen cores 1 and 3", counted from 1."""
    cores = [value] if isinstance(value, int) else list(value)
    if len(cores) != 1:
        *first, last = [str(core + 1) for core in cores]
        return f"{word} cores {', '.join(first)} and {last}"
    core = cores[0] + d if d and cores[0] < 0 else cores[0]
    places = {0: "first"} if d is None else {0: "first", d - 1: "last"} | ({d // 2: "middle"} if d % 2 else {})
    return f"{word} {places[core]} core" if core in places else f"{word} core {core + 1}"


def distinct_part(key: str, path: str, rivals: Sequence[dict[str, Any]]) -> str:
    """The part of a path that the paths of the others do not have in common with it, without the name of a split."""
    paths = [str(rival[key]).split("/") for rival in rivals if rival.get(key)]
    common = next((i for i, names in enumerate(zip(*paths, strict=False)) if len({*names}) > 1), 0)
    *folders, file = path.split("/")[common:] or [path]
    stem = SPLIT_WORD.sub("", file.rsplit(".", 1)[0]).strip("._-")
    return "/".join([*folders, *([stem] if stem else [])])


def compact(value: Any) -> str:
    """Format a value in few characters."""
    if isinstance(value, list):
        return "-".join(compact(part) for part in value) or "none"
    if isinstance(value, float) and float(f"{value:g}") == value:
        return f"{value:g}"
    return value if isinstance(value, str) else json.dumps(value)
