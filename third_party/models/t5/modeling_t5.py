"""T5ForConditionalGeneration with adapters.

    T5ForConditionalGeneration.from_pretrained("t5-base", adapters={"kind": "tt_lora", "rank": 8})

transformers' T5 is built first; then ``adapters.attach`` puts the modules into its sublayers, so no forward is
rewritten and the names in a checkpoint do not change. Three ways lead to the same model:

    base checkpoint, adapters=...      loaded, then attached
    a checkpoint with its adapters     attached while empty (config.adapters), then all weights loaded
    config.adapters by hand            attached while empty, the base loaded, the missing adapters started after that

If a kind makes its adapters from the base weights (those of PEFT do), all are attached after the base is loaded, and
their tensors are read after that.
"""

import os
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import torch
from transformers import T5ForConditionalGeneration as TransformersT5

import adapters
from adapters import attach, attachments, freeze
from adapters.freezing import adapter_parameters
from adapters.saved.files import set_default_mode
from third_party.models.t5.configuration_t5 import T5Config
from third_party.models.t5.late_adapters import ADAPTER_TENSORS, attach_and_read, state_dict_without_repetition

BASE_IS_AWAITED: ContextVar[bool] = ContextVar("base_is_awaited", default=False)
"""Whether the model that is being built is given its weights later."""


class T5ForConditionalGeneration(TransformersT5):
    """transformers' T5 with the adapters of ``config.adapters`` in place and everything else frozen."""

    config_class = T5Config
    config: T5Config

    def __init__(self, config: T5Config) -> None:
        super().__init__(config)
        pairs = config.attachments() if isinstance(config, T5Config) else []
        if BASE_IS_AWAITED.get() and any(adapter.reads_weights for _, adapter in pairs):
            self._keys_to_ignore_on_load_unexpected = set(ADAPTER_TENSORS)
            return
        for task, adapter in pairs:
            adapters.attach(self, adapter, task)

    @classmethod
    def from_pretrained(cls, path: str | os.PathLike, *args: Any, adapters: Any = None, **kwargs: Any) -> Any:
        """As in transformers, with ``adapters`` (an AdapterConfig, its dictionary, or a list) to attach after loading.

        Weights are read from safetensors only, and no code of a checkpoint is run, unless the caller overrides it.

        Raises:
            adapters.ConfigurationError: the adapters do not fit the model.
            OSError: the checkpoint does not exist, has another architecture, or lacks tensors of the base or some
                tensors of an adapter.
        """
        kwargs = {"use_safetensors": True, "trust_remote_code": False, **kwargs}
        with_info = kwargs.pop("output_loading_info", False)
        awaited = BASE_IS_AWAITED.set(True)
        try:
            model, info = super().from_pretrained(path, *args, output_loading_info=True, **kwargs)
        finally:
            BASE_IS_AWAITED.reset(awaited)
        check_base_is_whole(model, set(info["missing_keys"]), str(path))
        if not attachments(model) and getattr(model.config, "adapters", None):
            attach_and_read(model, path, kwargs)
        start_missing_adapters(model, set(info["missing_keys"]), str(path))
        if attachments(model):
            freeze(model)  # loading has created new Parameters, all of them trainable
        if adapters is not None:
            attach(model, adapters)
        return (model, info) if with_info else model

    def save_pretrained(self, directory: str | os.PathLike, *args: Any, **kwargs: Any) -> None:
        """As in transformers, unmerged, with the attached adapters in config.json; only this class loads them.

        Raises:
            adapters.ConfigurationError: the adapters are merged. Nothing is written.
        """
        if adapters.is_merged(self):
            raise adapters.ConfigurationError(
                f"A T5 with adapters is saved unmerged, for this class to load; got a merged one for {directory}: call "
                "adapters.unmerge(model) first, save the adapters alone by adapters.save(model, folder), or make a "
                "plain model by adapters.merge_and_unload(model) and save that."
            )
        self.config.adapters = [attachment.to_dict() for attachment in adapters.attachments(self)] or None
        if any(attachment.config.reads_weights for attachment in adapters.attachments(self)):
            kwargs.setdefault("state_dict", state_dict_without_repetition(self))
        super().save_pretrained(directory, *args, **kwargs)
        set_default_mode(*Path(directory).glob("*.safetensors"))

    def set_active_task(self, task: str | None) -> None:
        """See ``adapters.set_active_task``."""
        adapters.set_active_task(self, task)


def check_base_is_whole(model: T5ForConditionalGeneration, missing: set[str], path: str) -> None:
    """Refuse a checkpoint that lacks tensors of the base, which would stay random."""
    lost = missing - adapter_parameters(model).keys()
    if lost:
        raise OSError(
            f"A checkpoint must have every tensor of the base model; got {path}, which lacks {len(lost)}, first "
            f"{min(lost)!r}: name a checkpoint whose config.json and tensors belong together."
        )


def start_missing_adapters(model: T5ForConditionalGeneration, missing: set[str], path: str) -> None:
    """Initialise adapters that the checkpoint does not have; refuse one that it has in part."""
    shared = {name: p for name, p in model.named_parameters() if name.startswith("shared_parameters.")}
    loaded = {name: parameter.detach().clone() for name, parameter in shared.items() if name not in missing}
    for place, module in adapters.adapted_modules(model):
        for controller_name, controller in module.named_controllers():
            for task, adapter in controller.tasks.items():
                prefix = f"{place}.{controller_name}.tasks.{task}."
                own = {prefix + name for name, _ in adapter.named_parameters()}
                layers = [layer for layer in adapter.modules() if hasattr(layer, "shareable")]
                read = {id(parameter) for layer in layers for parameter in layer.shareable().values()}
                borrowed = {name for name, parameter in shared.items() if id(parameter) in read}
                lacking = own & missing or borrowed & missing
                if lacking and own - missing:
                    raise OSError(
                        f"A checkpoint must have an adapter completely or not at all; got {path}, which lacks "
                        f"{min(lacking)!r}: load it with the adapters it was saved with."
                    )
                if lacking:
                    module.initialize_adapter(adapter)
    with torch.no_grad():
        for name, value in loaded.items():  # initialising draws shared values again, also for other tasks
            model.get_parameter(name).copy_(value)
