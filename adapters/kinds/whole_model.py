"""Kinds that train what the model has already: its output projection, or all of it."""

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from adapters.base.sublayers import LM_HEAD, find_sublayers
from adapters.configuration import AdapterConfig
from adapters.freezing import adapter_parameters


@dataclass(frozen=True, kw_only=True)
class WithoutChoice(AdapterConfig):
    """Base of the kinds that name no stacks and layers."""

    position = "weights"
    reads_weights = True  # which of them are one tensor, the architecture does not say
    trains: ClassVar[str]

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.layers is not None:
            self.refuse("layers", f"has no choice, {self.trains} trains", list(self.layers), "leave it out")
        if set(self.stacks) != {"encoder", "decoder"}:
            self.refuse("stacks", f"has no choice, {self.trains} trains", list(self.stacks), "leave it out")


@dataclass(frozen=True, kw_only=True)
class LMHeadConfig(WithoutChoice, kind="lm_head"):
    """Train the output projection (vocabulary, d_model).

    Where it is tied to the embedding (T5, not v1.1 and mT5), that is one tensor: the embedding of both stacks trains.
    """

    trains = "the output projection"

    def weights(self, model: nn.Module) -> dict[str, bool]:
        """The projection's weight, by the name that the model has for it, True."""
        return {self._weight_name(model): True}

    def note(self, model: nn.Module) -> str | None:
        if self._weight_name(model) in self._heads(model):
            return None
        return f"The output projection is tied to the embedding: {self._weight_name(model)!r} trains as both."

    def _heads(self, model: nn.Module) -> list[str]:
        """Names that the weight has as the projection's own."""
        heads = [f"{s.linears[LM_HEAD]}.weight" for s in find_sublayers(model) if LM_HEAD in s.linears]
        if not heads:
            given = f"a {type(model).__name__} without one"
            self.refuse("kind", "needs an output projection", given, "load a model for conditional generation")
        return heads

    def _weight_name(self, model: nn.Module) -> str:
        """The first name of the weight, which parameters that stand in several places go by."""
        weight = model.get_parameter(self._heads(model)[0])
        return next(name for name, parameter in model.named_parameters() if parameter is weight)


@dataclass(frozen=True, kw_only=True)
class FullFineTuningConfig(WithoutChoice, kind="none"):
    """No adapter: every parameter of the model trains."""

    trains = "the whole model"

    def weights(self, model: nn.Module) -> dict[str, bool]:
        """Every parameter of the base model, True."""
        adapter_names = set(adapter_parameters(model))
        return {name: True for name, _ in model.named_parameters() if name not in adapter_names}
