"""The names of adapters: new ones are no part of a path in the model, and others are those of existing adapters."""

from collections.abc import Iterable, Sequence

from adapters.peft.row_adapters import BASE
from adapters.peft.shared import OWNER
from adapters.validation import ConfigurationError, nearest_name

RESERVED = {BASE, "base_model", "model", "base_layer", "tt_lora_delta", "modules_to_save", "original_module", OWNER}
"""Parts that PEFT and this tuner add to the paths of a base model, and PEFT's name for no adapter."""


def check_new_name(name: str, paths: Iterable[str]) -> None:
    """Check that no path has ``name`` as a part: PEFT drops the keys with another adapter's name when it saves one."""
    parts = RESERVED.union(*(path.split(".") for path in paths))
    if not isinstance(name, str) or name == "" or "." in name or name in parts:
        raise ConfigurationError(
            "The name of an adapter must be a text without a dot and no part of a path in the model, as PEFT tells the "
            f"tensors of adapters apart by parts of their paths; got {name!r}: choose another name."
        )


def check_names(names: str | Sequence[str], known: Iterable[str]) -> None:
    """Check that adapters of these names exist."""
    for name in [names] if isinstance(names, str) else names:
        if name not in known:
            raise ConfigurationError(f"An adapter is chosen by its name; got {name!r}: {nearest_name(name, known)}")


def check_list_of_names(names: Sequence[str] | None, known: Iterable[str]) -> None:
    """Check a list of names, which a merge needs; None is that of the active adapters."""
    if isinstance(names, str):
        raise TypeError(f"adapter_names should be a list of strings, got {names!r}: write [{names!r}].")
    check_names(names or (), known)
