"""save_pretrained of a model with adapters: refused, as transformers would write a folder that loads without them.

The state_dict of a model with adapters is that of the unmerged base, plus tensors that no plain model has. So
``from_pretrained`` would load the base alone, merged or not. A class that overrides ``save_pretrained``, as
``third_party.models.t5`` does to save its adapters along, keeps its own.

transformers' Trainer saves its checkpoint-<step> folders in the same way and resumes from their state_dict, which has
all of the adapters. They are written without the config.json that ``from_pretrained`` needs.
"""

import re
from pathlib import Path
from typing import Any

from torch import nn
from transformers import PreTrainedModel
from transformers.utils import CONFIG_NAME

from adapters.merging import adapted_modules
from adapters.validation import ConfigurationError

NAME = "save_pretrained"
CHECKPOINT = re.compile(r"checkpoint-\d+")


class SaveWithAdapters:
    """What ``save_pretrained`` of a model with adapters is: an attribute of this one model and of its copies."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def __call__(self, save_directory: Any, is_main_process: bool = True, **options: Any) -> None:
        """Write the weights of a checkpoint of transformers' Trainer, and refuse any other folder.

        Raises:
            ConfigurationError: the folder is not called checkpoint-<step>.
        """
        folder = Path(save_directory)
        if not CHECKPOINT.fullmatch(folder.name):
            raise ConfigurationError(
                f"A model with adapters, merged or not, cannot be saved by save_pretrained, as from_pretrained would "
                f"load the base without them; got the folder {str(folder)!r}: save the adapters by "
                "adapters.save(model, folder), or make a plain model by adapters.merge_and_unload(model) and save that."
            )
        PreTrainedModel.save_pretrained(self.model, folder, is_main_process, **options)
        if is_main_process:
            (folder / CONFIG_NAME).unlink()


def refuse_save_pretrained(model: nn.Module) -> None:
    """Refuse it for every model of transformers, here or inside ``model``, that holds adapters."""
    for module in model.modules():
        is_own = isinstance(module, PreTrainedModel) and type(module).save_pretrained is PreTrainedModel.save_pretrained
        if is_own and adapted_modules(module):
            setattr(module, NAME, SaveWithAdapters(module))


def allow_save_pretrained(model: nn.Module) -> None:
    """Let it be transformers' own again."""
    for module in model.modules():
        if isinstance(vars(module).get(NAME), SaveWithAdapters):
            delattr(module, NAME)
