"""A progress bar over work that may take long."""

import os
from collections.abc import Iterable
from typing import TypeVar

from tqdm.auto import tqdm

DELAY = 2.0
"""Seconds after which a bar appears."""
Item = TypeVar("Item")


def progress(items: Iterable[Item], description: str) -> Iterable[Item]:
    """The items, with a bar in the main process while they take long; it goes away at the end."""
    hidden = os.environ.get("RANK", "0") != "0"
    return tqdm(items, desc=description, delay=DELAY, leave=False, dynamic_ncols=True, disable=hidden)
