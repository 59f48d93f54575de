"""lm_head and none: train the model's own output projection, or the whole model."""

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from adapters.base.sublayers import LM_HEAD, find_sublayers
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
        if self._weight_name(model) in self._heads(model):
            return None
        return f"The output projection is tied to the embedding: {self._weight_name(model)!r} trains in both roles."

    def _heads(self, model: nn.Module) -> list[str]:
        """Return the names of the weight as the projection's."""
        heads = [f"{s.linears[LM_HEAD]}.weight" for s in find_sublayers(model) if LM_HEAD in s.linears]
        if not heads:
            given = f"a {type(model).__name__} without one"
            self.refuse("kind", "needs an output projection", given, "load a model for conditional generation")
        return heads

    def _weight_name(self, model: nn.Module) -> str:
        """Return the first name of the weight, under which torch lists a tied parameter."""
        weight = model.get_parameter(self._heads(model)[0])
        return next(name for name, parameter in model.named_parameters() if parameter is weight)


@dataclass(frozen=True, kw_only=True)
class FullFineTuningConfig(WithoutPlaces, kind="none"):
    """No adapter: all parameters of the model train."""

    trains = "the whole model"

    def weights(self, model: nn.Module) -> dict[str, bool]:
        """Return {name: True} for all parameters of the base model."""
        adapter_names = set(adapter_parameters(model))
        return {name: True for name, _ in model.named_parameters() if name not in adapter_names}
