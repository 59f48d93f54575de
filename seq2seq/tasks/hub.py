"""Whether the hub answers: asked once and quickly, where transformers and datasets would try for most of a minute."""

from collections.abc import Callable
from functools import cache

from huggingface_hub import HfApi

HUB_TIMEOUT = 10.0
"""Seconds until the hub counts as out of reach."""


@cache
def model_is_on_hub(name: str) -> bool:
    """Whether the hub answers that it has a model of this name."""
    return unanswered(HfApi().model_info, name) is None


def unanswered(question: Callable[..., object], name: str) -> Exception | None:
    """Why the hub does not answer the question about ``name``, or None where it does."""
    try:
        question(name, timeout=HUB_TIMEOUT)
    except Exception as error:  # whatever goes wrong on the way to the hub, the thing is not to be had there now
        return error
    return None
