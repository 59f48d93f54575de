"""T5ForConditionalGeneration that carries adapters.

    T5ForConditionalGeneration.from_pretrained("t5-base", adapters={"kind": "tt_lora", "rank": 8})

transformers' own T5 is built first, whole; then ``adapters.attach`` puts the modules in the places of its sublayers, so
no forward is rewritten and a checkpoint's names stay what they are. Three ways lead to the same model:

    base checkpoint, adapters=...      loaded, then attached
    a checkpoint with its adapters     attached while empty (config.adapters), then all weights loaded
    config.adapters by hand            attached while empty, the base loaded, the missing adapters started after that
"""

import os
from typing import Any

from transformers import T5ForConditionalGeneration as TransformersT5

import adapters
from adapters import attach, attachments, freeze
from adapters.freezing import adapter_parameters
from third_party.models.t5.configuration_t5 import T5Config


class T5ForConditionalGeneration(TransformersT5):
    """transformers' T5 with the adapters of ``config.adapters`` in place and everything else frozen."""

    config_class = T5Config
    config: T5Config

    def __init__(self, config: T5Config) -> None:
        super().__init__(config)
        for task, adapter in config.attachments() if isinstance(config, T5Config) else []:
            adapters.attach(self, adapter, task)

    @classmethod
    def from_pretrained(cls, path: str | os.PathLike, *args: Any, adapters: Any = None, **kwargs: Any) -> Any:
        """As transformers', with ``adapters`` (an AdapterConfig, its dictionary, or a list) to attach after loading.

        Weights are read from safetensors only, and no code of a checkpoint is run, unless the caller says otherwise.

        Raises:
            adapters.ConfigurationError: the adapters do not fit the model.
            OSError: the checkpoint is not there, is of another architecture, or lacks tensors of the base or some of
                those of an adapter that it has.
        """
        kwargs = {"use_safetensors": True, "trust_remote_code": False, **kwargs}
        with_info = kwargs.pop("output_loading_info", False)
        model, info = super().from_pretrained(path, *args, output_loading_info=True, **kwargs)
        check_base_is_whole(model, set(info["missing_keys"]), str(path))
        start_missing_adapters(model, set(info["missing_keys"]), str(path))
        if attachments(model):
            freeze(model)  # loading has put new Parameters, all of which would train
        if adapters is not None:
            attach(model, adapters)
        return (model, info) if with_info else model

    def save_pretrained(self, directory: str | os.PathLike, *args: Any, **kwargs: Any) -> Any:
        """As transformers', unmerged, with what is attached written into config.json."""
        self.config.adapters = [attachment.to_dict() for attachment in adapters.attachments(self)] or None
        return super().save_pretrained(directory, *args, **kwargs)

    def set_active_task(self, task: str | None) -> None:
        """See ``adapters.set_active_task``."""
        adapters.set_active_task(self, task)


def check_base_is_whole(model: T5ForConditionalGeneration, missing: set[str], path: str) -> None:
    """Refuse a checkpoint without some of the base's tensors, which would stay random."""
    lost = missing - adapter_parameters(model).keys()
    if lost:
        raise OSError(
            f"A checkpoint holds every tensor of the base model; {path} lacks {len(lost)}, the first {min(lost)!r}: "
            "name a checkpoint whose config.json and tensors belong together."
        )


def start_missing_adapters(model: T5ForConditionalGeneration, missing: set[str], path: str) -> None:
    """Give adapters that the checkpoint did not hold their initial values; refuse one that it holds in part."""
    shared_missing = any(name.startswith("shared_parameters.") for name in missing)
    for place, module in adapters.adapted_modules(model):
        for controller_name, controller in module.named_controllers():
            for task, adapter in controller.tasks.items():
                prefix = f"{place}.{controller_name}.tasks.{task}."
                own = {prefix + name for name, _ in adapter.named_parameters()}
                if own & missing and not own <= missing:
                    raise OSError(
                        f"A checkpoint holds an adapter whole or not at all; {path} lacks {min(own & missing)!r}: "
                        "load it with the adapters it was saved with."
                    )
                if own & missing or shared_missing:
                    module.start(adapter)
