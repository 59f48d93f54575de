"""Tensors of the base in an adapter's file: biases that train, and output layers that PEFT saves beside their deltas.

in the model                a layer with deltas has ``base_layer.`` in its names, and merged values
in the file                 the values without merged adapters; names depend on which layers had deltas then
in the model that loads     other layers may have deltas, those of other adapters too
"""

from collections.abc import Iterable

from torch import Tensor, nn

from adapters.peft.host import TensorTrainPeftHost
from adapters.saved.folder import PEFT_PREFIX, CheckpointError

BASE = "base_layer."


def put_unmerged(model: nn.Module, state_dict: dict[str, Tensor]) -> None:
    """Replace what merged layers hold in a ``state_dict`` of the model by what they hold unmerged."""
    for path, layer in model.named_modules():
        if isinstance(layer, TensorTrainPeftHost) and layer.is_merged:
            merged = [key for key in state_dict if key.startswith(f"{path}.{BASE}")]
            unmerged = {f"{path}.{BASE}{name}": tensor for name, tensor in layer.unmerged_state().items()}
            if merged:  # or a caller has passed other tensors only
                for key in merged:
                    del state_dict[key]
                state_dict.update(unmerged)


def check_not_empty(tensors: dict[str, Tensor]) -> None:
    """Check that no process holds these tensors in place of this one.

    Raises:
        CheckpointError: one is empty, as DeepSpeed's ZeRO-3 leaves it between the passes.
    """
    empty = [key for key, tensor in tensors.items() if not tensor.numel()]
    if empty:
        raise CheckpointError(
            f"A saved adapter has whole tensors; got an empty one, {empty[0]}, as ZeRO-3 shares them out: save by "
            "trainer.save_model, which gathers them."
        )


def at_present_layers(tensors: dict[str, Tensor], known: Iterable[str]) -> dict[str, Tensor]:
    """Give the tensors of a file the names that they have in a model with the Parameters ``known``.

    Raises:
        CheckpointError: a bias has no place there.
    """
    known = {key.removeprefix(PEFT_PREFIX) for key in known}
    layers = {key.partition(BASE)[0] for key in known if BASE in key}  # paths, with a dot
    found = {}
    for key, tensor in tensors.items():
        plain = key.removeprefix(PEFT_PREFIX).replace(BASE, "")
        at = next((path for path in layers if plain.startswith(path)), "")
        name = f"{at}{BASE}{plain.removeprefix(at)}" if at else plain
        of_whole_module = ".modules_to_save." in name  # a second copy, beside the one that PEFT loads
        if name.endswith(".bias") and name not in known and not of_whole_module:
            raise CheckpointError(
                "Biases that were trained load into linears that have them; got a bias at "
                f"{plain.removesuffix('.bias')}, which the model does not have: load it into its own base model."
            )
        found[f"{PEFT_PREFIX * key.startswith(PEFT_PREFIX)}{name}"] = tensor
    return found
