"""What differs between the versions of other libraries that setup.py allows."""

from dataclasses import fields
from typing import Any

from transformers import PreTrainedModel, TrainingArguments

CHECKPOINTING = next(
    name
    for name in ("activation_checkpointing", "gradient_checkpointing")
    if hasattr(PreTrainedModel, f"{name}_enable")
)
"""What transformers calls the technique: gradient_checkpointing before 5.23, and since then only as the older name."""

assert CHECKPOINTING in {field.name for field in fields(TrainingArguments)}


def checkpoint_activations(model: PreTrainedModel, settings: dict[str, Any] | None = None) -> None:
    """Compute activations again in the backward pass rather than keeping them."""
    getattr(model, f"{CHECKPOINTING}_enable")(settings)
