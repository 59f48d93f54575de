"""Query the hub once, with a short timeout; transformers and datasets would retry for most of a minute."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

from huggingface_hub import HfApi

HUB_TIMEOUT = 10.0
"""Seconds until the hub counts as unreachable."""


@cache
def model_is_on_hub(name: str) -> bool:
    """Whether the hub is reachable and has a model of this name."""
    return hub_error(HfApi().model_info, name) is None


def hub_error(query: Callable[..., object], name: str) -> Exception | None:
    """Send a query about ``name`` to the hub and return the error, or None if it succeeded."""
    try:
        query(name, timeout=HUB_TIMEOUT)
    except Exception as error:  # any failure on the way to the hub means that ``name`` is not available now
        return error
    return None


def only_local(location: str) -> bool:
    """Whether ``location`` is a directory, or a name that only the cache can have."""
    return Path(location).is_dir() or not model_is_on_hub(location)
