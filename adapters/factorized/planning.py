"""The linears that factorizations replace, each alone or together with others, and their networks.

    stack          linears of one input and one module: their rows are stacked in the first core with rows
    shared_basis   one linear in each of several layers: the layer is the row of the middle core

Either is a network of the stacked rows; a linear has its own part of one core and shares the others. All checks that
need no inputs are made here, or in ``adapters.factorized.shapes``.
"""

from collections.abc import Sequence
from typing import Any

from torch import nn

from adapters.base.kept_base import KeptBase
from adapters.base.linear_layers import describe, how_to_fix, is_plain_linear
from adapters.base.sites import unique_sites
from adapters.base.sublayers import Sublayer, find_sublayers
from adapters.base.targets import candidates, ends_with, matching
from adapters.factorized.configuration import EMBEDDING, FEED_FORWARD, SHARED_BASIS, FactorizedConfig
from adapters.factorized.embedding import embedding_target
from adapters.factorized.layers import FactorizedLinear, sizes
from adapters.factorized.shapes import check_one_value, check_patterns, network_spec
from adapters.factorized.targets import Target
from adapters.validation import nearest_name


def plan_targets(model: nn.Module, configs: Sequence[FactorizedConfig]) -> list[Target]:
    """The linears that the factorizations name, in the order of the model, with their networks.

    Raises:
        ConfigurationError: a factorization does not fit this model.
    """
    sublayers = find_sublayers(model)
    order = {path: number for number, (path, _) in enumerate(model.named_modules())}
    targets: list[Target] = []
    named: set[str] = set()
    for config in configs:
        found = (
            [embedding_target(model, config)]
            if config.target_modules == EMBEDDING
            else _linears(model, config, sublayers)
        )
        for path in (path for target in found for path in target.paths):
            if path in named:
                rule = "names weights that no other factorization names"
                config.refuse("target_modules", rule, f"{path}, which two of them name", "leave it out of one")
            named.add(path)
        targets += found
    return sorted(targets, key=lambda target: order[target.paths[0]])


def _linears(model: nn.Module, config: FactorizedConfig, sublayers: list[Sublayer]) -> list[Target]:
    """The linears that one factorization names."""
    chosen = _chosen(config, sublayers)
    linears = {path: _checked(model, config, path) for path, _ in model.named_modules() if path in chosen}
    check_patterns(config, linears)
    targets = []
    for paths in shared_bases(config, linears) if config.format == SHARED_BASIS else stacks(config, linears):
        check_one_value(config, paths)
        members = tuple(linears[path] for path in paths)
        transposed = _is_output(members[0], chosen[paths[0]], linears.values())
        targets.append(Target(paths, members, config, network_spec(config, paths[0], members, transposed)))
    return targets


def stacks(config: FactorizedConfig, linears: dict[str, nn.Module]) -> list[tuple[str, ...]]:
    """The linears of each network: those that ``stack`` names together in one module, and each other one alone."""
    groups: list[tuple[str, ...]] = []
    for names in config.stack:
        above = {path.removesuffix(names[0]): None for path in linears if ends_with(path, names[0])}
        found = [tuple(prefix + name for name in names) for prefix in above]
        if not found:
            fix = nearest_name(names[0], {path.rpartition(".")[2] for path in linears})
            config.refuse("stack", "names target modules", repr(names[0]), fix)
        for paths in found:
            missing = next((path for path in paths if path not in linears), None)
            if missing is not None:
                rule = "names target modules that are in one module"
                config.refuse("stack", rule, f"{missing}, which is none", "name them by the ends of their paths")
            _check_stack(config, {path: linears[path] for path in paths})
        groups += found
    stacked = [path for paths in groups for path in paths]
    twice = next((path for path in stacked if stacked.count(path) > 1), None)
    if twice is not None:
        config.refuse("stack", "names each linear once", f"{twice} in two groups", "leave it out of one")
    return [*groups, *((path,) for path in linears if path not in stacked)]


def shared_bases(config: FactorizedConfig, linears: dict[str, nn.Module]) -> list[tuple[str, ...]]:
    """The linears of each network: those of one kind in as many layers, one after another, as share a basis."""
    kinds: dict[tuple, list[str]] = {}
    for path, (stack, layer, kind) in unique_sites(linears).items():
        if layer is None:
            rule = "names linears in numbered layers"
            config.refuse("target_modules", rule, f"{path} with {config.format!r}", "leave it out")
        linear = linears[path]
        kinds.setdefault((stack, *kind, sizes(linear), type(linear), linear.weight.dtype), []).append(path)
    size = config.layers_per_basis or len(linears)
    return [tuple(paths[k : k + size]) for paths in kinds.values() for k in range(0, len(paths), size)]


def _check_stack(config: FactorizedConfig, linears: dict[str, nn.Module]) -> None:
    """Check that weights can be stacked: equal inputs, dtype and class, and equal outputs unless these are one core."""
    shapes = {path: sizes(linear)[::-1] for path, linear in linears.items()}
    same_rows = len(set(shapes.values())) == 1 or config.format == "low_rank"
    kinds = {(sizes(linear)[0], type(linear), linear.weight.dtype) for linear in linears.values()}
    if len(kinds) > 1 or not same_rows:
        given = ", ".join(f"{size} at {path}" for path, size in shapes.items())
        rule = "names linears of one class, dtype and size (out, in); in low_rank the outputs may differ"
        config.refuse("stack", rule, given, "stack others")


def _chosen(config: FactorizedConfig, sublayers: list[Sublayer]) -> dict[str, str]:
    """The role ("" for none) of each linear that is named, by path."""
    linears = candidates(config, sublayers)
    if config.target_modules == FEED_FORWARD:
        paths = {s.linears[name] for s, name in linears if s.kind == FEED_FORWARD}
        if not paths:
            rule = f"can be {FEED_FORWARD!r} in a known architecture"
            config.refuse("target_modules", rule, "another model", "name the linears, such as mlp.up_proj")
    else:
        paths = matching(config, "target_modules", config.target_modules, linears)
    if config.exclude_modules is not None:
        paths -= matching(config, "exclude_modules", config.exclude_modules, linears)
    if not paths:
        given = "names of all target modules"
        config.refuse("exclude_modules", "leaves at least one linear", given, "leave one of them out")
    return {s.linears[name]: s.roles.get(name, "") for s, name in linears if s.linears[name] in paths}


def _above(model: nn.Module, path: str) -> list[nn.Module]:
    """The modules that hold the one at ``path``, but for the model itself."""
    parts = path.split(".")
    return [model.get_submodule(".".join(parts[:k])) for k in range(1, len(parts))]


def _checked(model: nn.Module, config: FactorizedConfig, path: str) -> nn.Module:
    """The linear at ``path``; refused if its weight cannot be replaced."""
    linear = model.get_submodule(path)
    if isinstance(linear, FactorizedLinear):
        rule, fix = "names linears with dense weights", "call adapters.densify first, or leave it out"
        config.refuse("target_modules", rule, f"{path}, which is factorized already", fix)
    if isinstance(linear, KeptBase):
        rule, fix = "names linears without adapters", "call adapters.merge_and_unload first, or leave it out"
        config.refuse("target_modules", rule, f"{path}, which has some", fix)
    if any(hasattr(above, "base_layer") for above in _above(model, path)):
        rule, fix = "names linears without adapters", "call merge_and_unload of the model first, or leave it out"
        config.refuse("target_modules", rule, f"{path}, which is a part of one of PEFT", fix)
    if not is_plain_linear(linear):
        rule = "names modules of the class nn.Linear or Conv1D with dense weights"
        config.refuse("target_modules", rule, f"{describe(linear)} at {path}", how_to_fix(linear))
    weight = linear.weight
    names = [name for name, other in model.named_parameters(remove_duplicate=False) if other is weight]
    if len(names) > 1:
        other = next(name for name in names if name != f"{path}.weight")
        rule, fix = "names linears whose weights belong to them alone", "leave it out, or untie the two"
        config.refuse("target_modules", rule, f"{path}, which is tied to {other}", fix)
    if not weight.is_meta and not weight.isfinite().all():
        rule = "names linears with finite weights"
        config.refuse("target_modules", rule, f"a NaN or an infinity at {path}", "load intact weights")
    return linear


def _is_output(linear: nn.Module, role: str, linears: Any) -> bool:
    """Whether a shape given for all is meant transposed here: for the output matrix among linears of both sizes."""
    in_features, out_features = sizes(linear)
    has_both = any(sizes(other) == (out_features, in_features) for other in linears) and in_features != out_features
    return has_both and (role == "out" if role else out_features < in_features)
