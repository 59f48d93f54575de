"""The stacks of expert weights that ``target_parameters`` names, and their checks.

PEFT's rule: a Parameter is chosen if its path is a name, or ends with a dot and a name. With ``target_parameters`` and
without ``target_modules`` no linear is chosen.
"""

from collections.abc import Collection
from typing import Any

from torch import nn
from torch.nn.utils.parametrize import is_parametrized

from adapters.base.experts import reason_against
from adapters.peft.experts import base_of
from adapters.peft.selection import WHERE
from adapters.validation import nearest_name, refuse


def chosen_stacks(config: Any, model: nn.Module) -> dict[str, nn.Module]:
    """The modules that hold the stacks which a configuration names, adapted or not, by the path of the stack.

    Raises:
        ConfigurationError: a name chooses no Parameter, or one that is not a stack of expert weights.
    """
    known = _holders(model) if config.target_parameters else {}
    reasons = {path: reason_against(base_of(holder), path.rpartition(".")[2]) for path, holder in known.items()}
    chosen = {}
    for name in sorted(config.target_parameters or ()):
        found = [path for path in known if f".{path}".endswith(f".{name}")]
        if not found:
            length = len(name.split("."))
            ends = {".".join(path.split(".")[-length:]) for path, reason in reasons.items() if reason is None}
            rule = "must name stacks of expert weights by the ends of their paths"
            refuse("target_parameters", rule, repr(name), nearest_name(name, ends), WHERE)
        for path in found:
            if reasons[path] is not None:
                rule = "must name stacks of expert weights, (experts, out, in) or (experts, in, out)"
                fix = "leave it out; linears are chosen by target_modules"
                refuse("target_parameters", rule, f"{path}, {reasons[path]}", fix, WHERE)
        chosen |= {path: known[path] for path in found}
    return chosen


def check_fields(config: Any, linears: Collection[str]) -> None:
    """Check the fields that go with ``target_parameters``, and the mode "expert".

    Args:
        linears: the paths of the linears that the configuration chooses.

    Raises:
        ConfigurationError: one of them does not fit.
    """
    if "expert" in (config.modes or ()) and (linears or not config.target_parameters):
        given = f"{list(config.modes)} with {next(iter(linears), 'no target_parameters')}"
        fix = "name stacks such as 'experts.gate_up_proj' in target_parameters, and linears in another adapter"
        refuse("modes", "has a slice per expert for stacks of expert weights alone", given, fix, WHERE)
    if not config.target_parameters:
        return
    if config.delta_bias != "none":
        fix = 'write "none"; the experts of most models have no bias'
        refuse("delta_bias", 'must be "none" with target_parameters', repr(config.delta_bias), fix, WHERE)
    if config.layers_to_transform is not None:
        fix = "name whole paths, such as 'model.layers.0.mlp.experts.down_proj'"
        refuse("layers_to_transform", "chooses modules, not target_parameters", config.layers_to_transform, fix, WHERE)


def _holders(model: nn.Module) -> dict[str, nn.Module]:
    """The module in place of each Parameter of the base, by the path that this has without adapters."""
    return {
        f"{path}.{name}": module
        for path, module in model.named_modules()
        if path and not {"base_layer", "tt_lora_delta", "parametrizations"}.intersection(path.split("."))
        for name in _own_names(base_of(module))
    }


def _own_names(module: nn.Module) -> list[str]:
    """Names of the Parameters of a module itself, also of parametrised ones."""
    parametrised = module.parametrizations if is_parametrized(module) else ()
    return [*parametrised, *(name for name, _ in module.named_parameters(recurse=False))]
