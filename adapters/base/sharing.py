"""Parameters that several adapter modules have in common: one owner, many borrowers.

    model.shared_parameters    nn.ParameterDict, the one owner: in parameters(), in the state_dict, each tensor once
    layer.shareable()          {slot: Parameter}, what a layer could borrow: a core by its index, a basis or a rule by
                               its name
    layer.share(slot, owner, key)      from now on the layer reads owner[key] in place of its own; ``Borrower`` has it,
                               and ``t3nsor.module.TTModule`` for cores
    config.shared_slots()      {slot: scopes}, what the configuration asks to be borrowed, and across what

Two layers share a slot where all that the scopes leave out is the same:

    layers         the same place in other blocks, of both stacks
    sublayers      places at other kinds of sublayer
    projections    down and up of a bottleneck; the linears wi and wo, q, k, v and o
    tasks          the adapters that one configuration has for other tasks
"""

from collections.abc import Iterator
from typing import Any, Literal, get_args

from torch import nn

from adapters.base.places import Place

Scope = Literal["layers", "sublayers", "projections", "tasks"]
Sharing = dict[str, tuple[nn.Parameter, list[tuple[nn.Module, Any]]]]
"""For each key of ``shared_parameters``: the Parameter, and the (layer, slot) pairs that borrow it."""


class Borrower(nn.Module):
    """A module with Parameters that can be read from elsewhere in the model; ``shareable_names`` says which."""

    shareable_names: tuple[str, ...] = ()

    def __init__(self) -> None:
        super().__init__()
        self._borrowed: dict[str, tuple[nn.ParameterDict, str]] = {}

    def live(self, name: str) -> nn.Parameter:
        """The Parameter of this name as it is now, its own or a shared one."""
        if name in self._borrowed:
            owner, key = self._borrowed[name]
            return owner[key]
        return getattr(self, name)

    def shareable(self) -> dict[str, nn.Parameter]:
        """What could be shared, by name."""
        return {name: self.live(name) for name in self.shareable_names}

    def share(self, name: str, owner: nn.ParameterDict, key: str) -> None:
        """From now on read the Parameter ``name`` from ``owner[key]``, and hold nothing there."""
        setattr(self, name, None)
        self._borrowed[name] = (owner, key)


def plan_sharing(
    model: nn.Module, name: str, task: str, config: Any, modules: list[tuple[Place, nn.Module]]
) -> Sharing:
    """What the modules of one attachment share, with each other and with what the model has already.

    Args:
        model: owner of ``shared_parameters``, if anything has been shared in it.
        name: the attachment's name.
        task: its task, or the word for all tasks.
        config: its configuration.
        modules: its modules with their places.

    Raises:
        ConfigurationError: parameters of different shapes would have to be one.
    """
    planned: Sharing = {}
    owned = getattr(model, "shared_parameters", {})
    for place, inner_path, layer, slot, scopes in _slots(config, modules):
        own = layer.shareable()[slot]
        key = _key(name, task, place, inner_path, slot, scopes)
        parameter, borrowers = planned.setdefault(key, (owned.get(key, own), []))
        if parameter.shape != own.shape:
            config.refuse(
                _key_that_asks(config, slot),
                f"shares parameters of one shape across {in_words(scopes)}",
                f"{tuple(parameter.shape)} and {tuple(own.shape)} at {place.path}",
                _mend(config, slot, layer, scopes),
            )
        borrowers.append((layer, slot))
    return planned


def share(model: nn.Module, planned: Sharing) -> None:
    """Put the planned Parameters into ``model.shared_parameters`` and let their borrowers read them there."""
    if planned and not hasattr(model, "shared_parameters"):
        model.shared_parameters = nn.ParameterDict().train(model.training)
    for key, (parameter, borrowers) in planned.items():
        model.shared_parameters[key] = parameter
        for layer, slot in borrowers:
            layer.share(slot, model.shared_parameters, key)


def in_words(scopes: frozenset[Scope]) -> str:
    """ "layers, tasks": the scopes in the order of the list above."""
    return ", ".join(scope for scope in get_args(Scope) if scope in scopes)


def scopes_of(config: Any, key: str) -> frozenset[Scope]:
    """Across what an entry of ``shared_parameters`` is shared; ``config`` is that of its attachment."""
    return next(scopes for slot, scopes in config.shared_slots().items() if key.endswith(f"-{slot}"))


def _key_that_asks(config: Any, slot: Any) -> str:
    """The field of the configuration that asks for a slot to be shared."""
    if slot in getattr(config, "shared_cores", ()):
        return "shared_cores"
    if getattr(config, "modes", None):
        return "modes"
    return slot if hasattr(config, slot) else "share_across"


def _mend(config: Any, slot: Any, layer: nn.Module, scopes: frozenset[Scope]) -> str:
    """What would let layers share: a raw_shape for two of swapped sizes, else places that are alike."""
    if isinstance(slot, int) and "projections" in scopes and hasattr(layer, "in_features"):
        wide, narrow = sorted((layer.out_features, layer.in_features), reverse=True)
        if (shape := config.shareable_raw_shape(wide, narrow)) is not None:
            return f"choose places of equal sizes, or for {narrow} -> {wide} and back write raw_shape {shape}"
    return "choose places of equal sizes"


def _slots(
    config: Any, modules: list[tuple[Place, nn.Module]]
) -> Iterator[tuple[Place, str, nn.Module, Any, frozenset[Scope]]]:
    asked = config.shared_slots()
    for place, module in modules if asked else []:
        for inner_path, layer in module.named_modules():
            if hasattr(layer, "shareable"):
                for slot in layer.shareable():
                    if slot in asked:
                        yield place, inner_path, layer, slot, asked[slot]


def _key(name: str, task: str, place: Place, inner_path: str, slot: Any, scopes: frozenset[Scope]) -> str:
    """A name without dots, of what the borrowers have in common."""
    parts = [name]
    if "tasks" not in scopes:
        parts.append(task)
    if "layers" not in scopes:
        parts.append(f"{place.sublayer.stack}-{place.sublayer.layer}")
    if "sublayers" not in scopes:
        parts.append(place.sublayer.kind)
    if "projections" not in scopes:
        parts += [place.projection, inner_path.replace(".", "-")]
    return "-".join(part for part in [*parts, str(slot)] if part)
