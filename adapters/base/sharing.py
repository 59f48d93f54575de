"""Parameters shared by several adapter modules: one owner, many borrowers.

    model.shared_parameters         nn.ParameterDict, the owner: each tensor once in parameters() and in the state_dict
    layer.shareable()               {slot: Parameter}, what a layer can borrow: a core by index, a basis or rule by name
    layer.share(slot, owner, key)   lets the layer read owner[key] instead of its own Parameter; a method of
                                    ``Borrower``, and of ``t3nsor.module.TTModule`` for cores
    config.shared_slots()           {slot: scopes}, what is to be shared, and across what

Two layers share a slot if they differ only in the scopes of that slot:

    layers         the same place in other blocks, of both stacks
    sublayers      places at other kinds of sublayer
    projections    down and up of a bottleneck; the linears wi and wo, or q, k, v and o
    tasks          the adapters of the same configuration for other tasks
    loops          the deltas for other loops of a looped model, see ``adapters.base.loops``
    experts        the deltas for other experts of a stack, see ``adapters.base.experts``
"""

from collections.abc import Iterator
from typing import Any, Literal, get_args

from torch import nn

from adapters.base import experts
from adapters.base.loops import split_entry, split_loop
from adapters.base.places import Place

Scope = Literal["layers", "sublayers", "projections", "tasks", "loops", "experts"]
Sharing = dict[str, tuple[nn.Parameter, list[tuple[nn.Module, Any]]]]
"""For each key of ``shared_parameters``: the Parameter, and the (layer, slot) pairs that borrow it."""


class Borrower(nn.Module):
    """A module whose Parameters named in ``shareable_names`` can be read from elsewhere in the model."""

    shareable_names: tuple[str, ...] = ()

    def __init__(self) -> None:
        super().__init__()
        self._borrowed: dict[str, tuple[nn.ParameterDict, str]] = {}

    def live(self, name: str) -> nn.Parameter:
        """The current Parameter of this name, its own or a shared one."""
        if name in self._borrowed:
            owner, key = self._borrowed[name]
            return owner[key]
        return getattr(self, name)

    def shareable(self) -> dict[str, nn.Parameter]:
        """The Parameters that can be shared, by name."""
        return {name: self.live(name) for name in self.shareable_names}

    def share(self, name: str, owner: nn.ParameterDict, key: str) -> None:
        """Read the Parameter ``name`` from ``owner[key]`` from now on, instead of holding it."""
        setattr(self, name, None)
        self._borrowed[name] = (owner, key)


def plan_sharing(
    model: nn.Module, name: str, task: str, config: Any, modules: list[tuple[Place, nn.Module]]
) -> Sharing:
    """Plan what the modules of one attachment share with each other, and with earlier attachments to the model.

    Args:
        model: owner of ``shared_parameters``, if it already shares anything.
        name: the attachment's name.
        task: its task, or ``ALL_TASKS``.
        config: its configuration.
        modules: its modules with their places.

    Raises:
        ConfigurationError: parameters of different shapes would have to be shared.
    """
    planned: Sharing = {}
    owned = getattr(model, "shared_parameters", {})
    for place, inner_path, layer, slot, scopes in _slots(config, modules):
        own = layer.shareable()[slot]
        key = _key(name, task, place, inner_path, slot, scopes)
        parameter, borrowers = planned.setdefault(key, (owned.get(key, own), []))
        if parameter.shape != own.shape:
            config.refuse(
                config.field_of_slot(slot),
                f"shares parameters of one shape across {in_words(scopes)}",
                f"{tuple(parameter.shape)} and {tuple(own.shape)} at {place.path}",
                _fix(config, slot, layer, scopes, modules),
            )
        borrowers.append((layer, slot))
    return planned


def share(model: nn.Module, planned: Sharing) -> None:
    """Move the planned Parameters into ``model.shared_parameters`` and let their borrowers read them there."""
    if planned and not hasattr(model, "shared_parameters"):
        model.shared_parameters = nn.ParameterDict().train(model.training)
    for key, (parameter, borrowers) in planned.items():
        model.shared_parameters[key] = parameter
        for layer, slot in borrowers:
            layer.share(slot, model.shared_parameters, key)


def in_words(scopes: frozenset[Scope]) -> str:
    """The scopes in the order of the list above, such as "layers, tasks"."""
    return ", ".join(scope for scope in get_args(Scope) if scope in scopes)


def scopes_of(config: Any, key: str) -> frozenset[Scope]:
    """The scopes of an entry of ``shared_parameters``; ``config`` is that of its attachment."""
    return next(scopes for slot, scopes in config.shared_slots().items() if key.endswith(f"-{slot}"))


def _fix(config: Any, slot: Any, layer: nn.Module, scopes: frozenset[Scope], modules: list) -> str:
    """How to make layers shareable: a raw_shape for two of swapped sizes, else places of equal sizes, by name."""
    if isinstance(slot, int) and "projections" in scopes and hasattr(layer, "in_features"):
        wide, narrow = sorted((layer.out_features, layer.in_features), reverse=True)
        if (shape := config.shareable_raw_shape(wide, narrow)) is not None:
            return f"choose places of equal sizes, or for {narrow} -> {wide} and back raw_shape {shape}"
    groups = _names_by_size(modules) if hasattr(config, "target_modules") else []
    names = [name for group in groups for name in group]
    if len(groups) < 2 or len(set(names)) < len(names):
        return "choose places of equal sizes"
    key = "target_parameters" if any(isinstance(m, experts.DeltaPerExpert) for _, m in modules) else "target_modules"
    return f"attach one adapter for each size, with {key} {' and '.join(map(str, groups))}"


def _names_by_size(modules: list[tuple[Place, nn.Module]]) -> list[list[str]]:
    """The names of the linears of each size, such as [["attn.c_proj"], ["mlp.c_fc"]]."""
    groups: dict[tuple[int, int], dict[str, None]] = {}
    for place, module in modules:
        for layer in module.modules():
            if hasattr(layer, "in_features"):
                name = ".".join(place.path.split(".")[-2:])
                groups.setdefault((layer.in_features, layer.out_features), {})[name] = None
    return [list(names) for names in groups.values()]


def _slots(
    config: Any, modules: list[tuple[Place, nn.Module]]
) -> Iterator[tuple[Place, str, nn.Module, Any, frozenset[Scope]]]:
    """The layers that share, slot by slot: place, path below its module, layer, slot, scopes."""
    shared = config.shared_slots()
    for place, module in modules if shared else []:
        for inner_path, layer in module.named_modules():
            if hasattr(layer, "shareable"):
                for slot in layer.shareable():
                    if slot in shared:
                        yield place, inner_path, layer, slot, shared[slot]


def _key(name: str, task: str, place: Place, inner_path: str, slot: Any, scopes: frozenset[Scope]) -> str:
    """A name without dots, made of what the borrowers have in common."""
    parts = [name]
    loop, inner_path = split_loop(inner_path)
    expert, inner_path = split_entry(experts.ATTRIBUTE, inner_path)
    if "tasks" not in scopes:
        parts.append(task)
    if loop and "loops" not in scopes:
        parts.append(f"loop-{loop}")
    if expert and "experts" not in scopes:
        parts.append(f"expert-{expert}")
    if "layers" not in scopes:
        parts.append(f"{place.sublayer.tower or place.sublayer.stack}-{place.sublayer.layer}")
    if "sublayers" not in scopes:
        parts.append(place.sublayer.kind)
    if "projections" not in scopes:
        parts += [place.projection, inner_path.replace(".", "-")]
    return "-".join(part for part in [*parts, str(slot)] if part)
