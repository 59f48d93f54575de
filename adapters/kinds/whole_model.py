"""lm_head, head and none: train the model's own output projection, the head over it, or the whole model."""

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from adapters.base.heads import head_parameters, output_projection
from adapters.configuration import AdapterConfig
from adapters.freezing import adapter_parameters


@dataclass(frozen=True, kw_only=True)
class WithoutPlaces(AdapterConfig):
    """Base class of the kinds that do not take stacks and layers."""

    position = "weights"
    reads_weights = True  # the architecture does not determine which weights are tied
    trains: ClassVar[str]

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.layers is not None:
            self.refuse("layers", f"is not supported, as {self.trains} trains", list(self.layers), "leave it out")
        if set(self.stacks) != {"encoder", "decoder"}:
            self.refuse("stacks", f"is not supported, as {self.trains} trains", list(self.stacks), "leave it out")


@dataclass(frozen=True, kw_only=True)
class LMHeadConfig(WithoutPlaces, kind="lm_head"):
    """Train the output projection (vocabulary, d_model).

    If it is tied to the embedding (T5, not v1.1 and mT5), the embedding of both stacks trains too: it is one tensor.
    """

    trains = "the output projection"

    def weights(self, model: nn.Module) -> dict[str, bool]:
        """Return {name of the projection's weight: True}."""
        return {self._weight_name(model): True}

    def note(self, model: nn.Module) -> str | None:
        if self._weight_name(model) == self._head(model):
            return None
        return f"The output projection is tied to the embedding: {self._weight_name(model)!r} trains in both roles."

    def _head(self, model: nn.Module) -> str:
        """Return the name of the weight as the projection's."""
        path = output_projection(model)
        if not path:
            given = f"a {type(model).__name__} without one"
            self.refuse("kind", "needs an output projection", given, "load a language model, or use the kind head")
        return f"{path}.weight"

    def _weight_name(self, model: nn.Module) -> str:
        """Return the first name of the weight, under which torch lists a tied parameter."""
        weight = model.get_parameter(self._head(model))
        return next(name for name, parameter in model.named_parameters() if parameter is weight)


@dataclass(frozen=True, kw_only=True)
class HeadConfig(WithoutPlaces, kind="head"):
    """Train the head of a task, such as the classifier over an encoder, whole; it is saved with the adapters."""

    trains = "the head"

    def weights(self, model: nn.Module) -> dict[str, bool]:
        """Return {name: True} for the parameters of the head."""
        names = head_parameters(model)
        if not names:
            given = f"a {type(model).__name__} without one"
            fix = "load a model with a head, such as AutoModelForSequenceClassification, or use the kind lm_head"
            self.refuse("kind", "needs a head beside the model's body", given, fix)
        return dict.fromkeys(names, True)


@dataclass(frozen=True, kw_only=True)
class FullFineTuningConfig(WithoutPlaces, kind="none"):
    """No adapter: all parameters of the model train."""

    trains = "the whole model"

    def weights(self, model: nn.Module) -> dict[str, bool]:
        """Return {name: True} for all parameters of the base model."""
        adapter_names = set(adapter_parameters(model))
        return {name: True for name, _ in model.named_parameters() if name not in adapter_names}
