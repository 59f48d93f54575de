"""factors and weights: train parameters of the model itself, of its factorized weights or by their names."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from adapters.factorized.networks import network_parameters
from adapters.freezing import adapter_parameters
from adapters.kinds.whole_model import WithoutPlaces


@dataclass(frozen=True, kw_only=True)
class FactorsConfig(WithoutPlaces, kind="factors"):
    """Train the cores and scalars of factorized weights; frozen cores stay as they are."""

    trains = "every factorized weight"

    def weights(self, model: nn.Module) -> dict[str, bool]:
        """Return {name: True} for the parameters of all networks."""
        names = network_parameters(model)
        if not names:
            given, fix = (
                f"a {type(model).__name__} without any",
                "call adapters.factorize first, or give the key factorize",
            )
            self.refuse("kind", "needs factorized weights", given, fix)
        return dict.fromkeys(names, True)


@dataclass(frozen=True, kw_only=True)
class WeightsConfig(WithoutPlaces, kind="weights"):
    """Train parameters of the model itself that are named.

    Args:
        target_parameters: ends of names, such as ["mlp.down_proj.weight"], or a regular expression for whole names,
            such as ".*mlp.*".
    """

    trains = "what is named"

    target_parameters: tuple[str, ...] | str

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.target_parameters:
            self.refuse("target_parameters", "needs at least one name", "an empty list", "name a parameter")
        if isinstance(self.target_parameters, str):
            try:
                re.compile(self.target_parameters)
            except re.error as error:
                given = f"{self.target_parameters!r} ({error})"
                self.refuse("target_parameters", "is a regular expression or a list of names", given, "write a list")

    def weights(self, model: nn.Module) -> dict[str, bool]:
        """Return {name: True} for the parameters that are named."""
        of_adapters = adapter_parameters(model)
        names = [name for name, _ in model.named_parameters() if name not in of_adapters]
        wanted = self.target_parameters
        if isinstance(wanted, str):
            found = {wanted: [name for name in names if re.fullmatch(wanted, name)]}
        else:
            found = {end: [name for name in names if f".{name}".endswith(f".{end}")] for end in wanted}
        self._check_found(found, names)
        return dict.fromkeys((name for name in names if any(name in group for group in found.values())), True)

    def _check_found(self, found: Mapping[str, list[str]], names: list[str]) -> None:
        for wanted, group in found.items():
            if not group:
                given, fix = f"{wanted!r}, which names none", f"write for example {names[-1]!r}"
                self.refuse("target_parameters", "names parameters of the model", given, fix)
