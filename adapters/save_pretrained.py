"""save_pretrained of a model with adapters: refused, as transformers would write a folder that loads without them.

The state_dict of a model with adapters is that of the unmerged base, plus tensors that no plain model has. So
``from_pretrained`` would load the base alone, merged or not. The refusal is an attribute of the model itself, a plain
function, so that copies and pickles of the model have it too. A class that overrides ``save_pretrained``, as
``third_party.models.t5`` does to save its adapters along, keeps its own.
"""

from typing import Any, NoReturn

from torch import nn
from transformers import PreTrainedModel

from adapters.merging import adapted_modules
from adapters.validation import ConfigurationError

NAME = "save_pretrained"


def refuse_save_pretrained(model: nn.Module) -> None:
    """Refuse it for every model of transformers, here or inside ``model``, that holds adapters."""
    for module in model.modules():
        is_own = isinstance(module, PreTrainedModel) and type(module).save_pretrained is PreTrainedModel.save_pretrained
        if is_own and adapted_modules(module):
            setattr(module, NAME, save_pretrained)


def allow_save_pretrained(model: nn.Module) -> None:
    """Let it be transformers' own again."""
    for module in model.modules():
        if vars(module).get(NAME) is save_pretrained:
            delattr(module, NAME)


def save_pretrained(*args: Any, **kwargs: Any) -> NoReturn:
    """Refuse to save.

    Raises:
        ConfigurationError: always.
    """
    given = args[0] if args else kwargs.get("save_directory")
    raise ConfigurationError(
        f"A model with adapters, merged or not, cannot be saved by save_pretrained, as from_pretrained would load the "
        f"base without them; got the folder {str(given)!r}: save the adapters by adapters.save(model, folder), or make "
        "a plain model by adapters.merge_and_unload(model) and save that."
    )
