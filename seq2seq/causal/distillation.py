"""The key ``distill``: the model also follows another one, such as the dense model that it was made from.

    "distill": {"weight": 0.5, "temperature": 2.0}                      the run's own base model, without adapters
    "distill": {"model": "HuggingFaceTB/SmolLM2-135M", "weight": 0.9}   another model with the same vocabulary

``third_party.trainers.causal_trainer`` has the loss. The teacher is a second model in memory; the log states its size.
"""

import math
from dataclasses import asdict, dataclass
from typing import Any

from adapters import ConfigurationError
from adapters.validation import from_json, refuse

WHERE = "distill"


@dataclass(frozen=True, kw_only=True)
class Distillation:
    """How a model follows its teacher.

    Args:
        model: a directory or a name of the teacher; None for the run's own base model.
        weight: of the teacher in the loss, above 0 and at most 1; that of the targets is the rest.
        temperature: of both distributions, above 0.

    Raises:
        ConfigurationError: a value is out of range.
    """

    model: str | None = None
    weight: float = 0.5
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.weight <= 1:
            refuse("weight", "is above 0 and at most 1", self.weight, "leave distill out for none", WHERE)
        if not 0 < self.temperature < math.inf:
            refuse("temperature", "is above 0", self.temperature, "1 and 2 are typical", WHERE)

    @classmethod
    def from_dict(cls, values: Any) -> "Distillation":
        """Read the key's JSON form."""
        if not isinstance(values, dict):
            raise ConfigurationError(
                f"Key 'distill' is an object; got {values!r}: write for example "
                '{"weight": 0.5, "temperature": 2.0}.'
            )
        return from_json(cls, values, WHERE)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form, which ``from_dict`` reads back."""
        return asdict(self)
