"""Which linears have deltas and which modules train whole, in the terms of PEFT and of ``adapters.attach``.

PEFT       target_modules: ends of paths, of any modules           modules_to_save: the same, modules that train whole
tt_lora    target_modules: ends of paths, of linears, or roles     the kind head: all modules over the body
"""

from collections.abc import Collection
from pathlib import Path

from peft import PeftModel
from peft.utils import ModulesToSaveWrapper
from torch import nn

from adapters.base.heads import head_parameters
from adapters.base.layout import ROLES
from adapters.base.sublayers import find_sublayers
from adapters.base.targets import ends_with, names_of, nearest_target, roles_as_paths
from adapters.peft.configuration import TensorTrainConfig
from adapters.peft.selection import WHERE
from adapters.saved.folder import CheckpointError
from adapters.validation import refuse


def peft_targets(base: nn.Module, paths: set[str]) -> list[str] | str:
    """PEFT's ``target_modules`` that select exactly the modules at ``paths`` of a base without adapters."""
    all_paths = [path for path, _ in base.named_modules()]
    return names_of(paths, lambda end: {path for path in all_paths if ends_with(path, end)})


def head_modules(base: nn.Module, directory: Path) -> list[str]:
    """The paths of the modules that make up the head of a model, the largest ones that hold nothing else.

    Raises:
        CheckpointError: a parameter of it is in no such module.
    """
    head = set(head_parameters(base))
    modules: dict[str, None] = {}
    for name in sorted(head):
        parts = name.split(".")
        paths = (".".join(parts[:k]) for k in range(1, len(parts)))
        whole = next((path for path in paths if _parameters_of(base, path) <= head), None)
        if whole is None:
            raise CheckpointError(
                f"In PEFT whole modules train; got the head of {directory}, whose parameter {name} is in a module of "
                "other parts: train the adapter without the kind head."
            )
        modules[whole] = None
    return list(modules)


def _parameters_of(base: nn.Module, path: str) -> set[str]:
    return {f"{path}.{name}" for name, _ in base.get_submodule(path).named_parameters()}


def whole_modules(model: PeftModel, adapter_name: str) -> dict[str, str]:
    """The parameters of the modules that train whole: the name in the PeftModel of each by that in the base."""
    return {
        f"{path}.{name}": f"base_model.model.{path}.modules_to_save.{adapter_name}.{name}"
        for path, wrapper in model.base_model.model.named_modules()
        if isinstance(wrapper, ModulesToSaveWrapper)
        for name, _ in wrapper.modules_to_save[adapter_name].named_parameters()
    }


def check_whole_head(base: nn.Module, names: dict[str, str], directory: Path) -> None:
    """Check that the parameters ``names`` of whole modules are those of the head of a base without adapters.

    Raises:
        CheckpointError: one of the head is missing, or one is not of the head.
    """
    head = set(head_parameters(base))
    if others := sorted(names.keys() ^ head):
        which = "only a part of the head, without" if others[0] in head else "beside the head"
        raise CheckpointError(
            f"Of whole modules the head is converted, the kind head; got {which} {others[0]} in {directory}: load it "
            "with PEFT, call merge_and_unload of the PeftModel and save the plain model."
        )


def replace_roles(config: TensorTrainConfig, model: nn.Module, paths: Collection[str]) -> None:
    """Write the paths of the linears where ``target_modules`` has a role, as PEFT matches paths.

    Raises:
        ConfigurationError: no linear of the model has this role.
    """
    targets = config.target_modules
    if targets is None or isinstance(targets, str) or {*targets}.isdisjoint(ROLES):
        return
    sublayers = find_sublayers(model)
    replaced = roles_as_paths(sorted(targets), sublayers, paths)
    for role in {*replaced}.intersection(ROLES):
        if not any(ends_with(path, role) for path in paths):
            fix = nearest_target(role, [(sublayer, name) for sublayer in sublayers for name in sublayer.linears])
            refuse(
                "target_modules", "must name linears by ends of their paths or by their roles", repr(role), fix, WHERE
            )
    config.target_modules = set(replaced)
