"""Which linears have deltas, in the terms of PEFT and of the kind tt_lora.

PEFT       target_modules: names of linears, or whole paths
tt_lora    stacks x layers x sublayers x target_modules
"""

from pathlib import Path
from typing import Any

from peft import PeftModel
from torch import nn

from adapters.base.sublayers import find_sublayers
from adapters.kinds.tensor_train import TensorTrainLoRAConfig
from adapters.saved.folder import CheckpointError


def target_modules(model: nn.Module, paths: set[str]) -> list[str]:
    """Return PEFT's ``target_modules``: names of linears if these select exactly ``paths``, else all paths."""
    names = {path.rpartition(".")[2] for path in paths}
    all_paths = {path for sublayer in find_sublayers(model) for path in sublayer.linears.values()}
    return sorted(names if {path for path in all_paths if path.rpartition(".")[2] in names} == paths else paths)


def placement(model: PeftModel, paths: set[str], directory: Path) -> dict[str, Any]:
    """Return the fields of tt_lora that select exactly ``paths``, defaults where these do."""
    known = {
        path: (sublayer.stack, sublayer.layer, sublayer.kind, name)
        for sublayer in find_sublayers(model.base_model.model)
        for name, path in sublayer.linears.items()
        if sublayer.kind != "final"
    }
    wanted = [known[path] for path in paths if path in known]
    stacks, layers, kinds, names = (sorted(set(column)) for column in zip(*wanted, strict=True)) if wanted else [[]] * 4
    selected = {
        path for path, (s, n, k, name) in known.items() if s in stacks and n in layers and k in kinds and name in names
    }
    if selected != paths:
        raise CheckpointError(
            "The kind tt_lora selects linears by stacks x layers x sublayers x names; got a selection in "
            f"{directory} that is not such a product because of {sorted(paths ^ selected)[0]}: load it with "
            "PeftModel.from_pretrained."
        )
    all_layers = {n for s, n, _, _ in known.values() if s in stacks}
    feed_forward = sorted({name for _, _, kind, name in known.values() if kind == "feed_forward"})
    kinds_with_names = {k for s, n, k, name in known.values() if s in stacks and n in layers and name in names}
    default = TensorTrainLoRAConfig()
    return {
        "target_modules": None if names == feed_forward else names,
        "sublayers": default.sublayers if kinds_with_names == set(kinds) else kinds,
        "stacks": default.stacks if set(stacks) == set(default.stacks) else stacks,
        "layers": None if set(layers) == all_layers else layers,
    }
