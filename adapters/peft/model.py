"""The tuner: PEFT's injection, saving and switching, for TT deltas.

    model.encoder.block.0...wi      nn.Linear  ->  TensorTrainPeftLinear
    keys in the model               ...wi.tt_lora_delta.<adapter name>.linear.cores.0
    keys in a checkpoint            ...wi.tt_lora_delta.linear.cores.0
    what deltas share               model.shared_by_deltas, see ``adapters.peft.shared``

PEFT reads a configuration's ``bias`` as "which biases of the base train"; here it is the delta's own bias, so the three
places where PEFT acts on it are overridden.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from peft import PeftConfig
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer, _maybe_include_all_linear_layers
from peft.utils import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING, AuxiliaryTrainingWrapper
from torch import nn

from adapters.merging import MergeError
from adapters.peft.base_layers import check_linear, features
from adapters.peft.configuration import PREFIX, TensorTrainConfig
from adapters.peft.layer import TensorTrainPeftLayer
from adapters.peft.linear import TensorTrainPeftLinear
from adapters.peft.shared import OWNER, drop_owner, plan, share_in
from adapters.tensor_train.patterns import check_patterns
from adapters.validation import ConfigurationError

RESERVED = {"base_model", "model", "base_layer", "tt_lora_delta", "modules_to_save", "original_module", OWNER}
"""Parts of paths that PEFT and this tuner put beside those of a base."""
T5_FEED_FORWARD = ["wi", "wi_0", "wi_1", "wo"]


class TensorTrainModel(BaseTuner):
    """The model inside the ``PeftModel`` that ``get_peft_model(model, TensorTrainConfig(...))`` returns."""

    prefix = PREFIX
    tuner_layer_cls = TensorTrainPeftLayer
    target_module_mapping = {  # noqa: RUF012 - a plain class attribute in PEFT
        **TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING,
        **dict.fromkeys(("t5", "mt5", "umt5"), T5_FEED_FORWARD),
    }

    def inject_adapter(self, model: nn.Module, adapter_name: str, *args: Any, **kwargs: Any) -> None:
        """Put one adapter in, then let its deltas share what they are to have in common; as PEFT's otherwise.

        A ``state_dict`` says by its keys which linears take a delta; where cores are shared, ``target_modules`` does,
        as a linear may have no tensor of its own.
        """
        config, active = self.peft_config[adapter_name], self.active_adapters
        if config.to_adapter_config().shared_slots():
            args, kwargs = args[:2], {key: value for key, value in kwargs.items() if key != "state_dict"}
        super().inject_adapter(model, adapter_name, *args, **kwargs)
        trains = adapter_name in active and not config.inference_mode
        share_in(model, adapter_name, config.to_adapter_config(), active, trains)

    def delete_adapter(self, adapter_name: str) -> None:
        """Remove one adapter, with what its deltas share."""
        super().delete_adapter(adapter_name)
        drop_owner(self.model)

    def merge_adapter(self, adapter_names: list[str] | None = None, safe_merge: bool = False) -> None:
        """Merge in place, to be undone by ``unmerge_adapter``; see ``TensorTrainPeftLinear.merge``.

        Raises:
            MergeError: one of the adapters is not linear, or ``safe_merge`` found infinities or NaN. The model is as it
                was.
        """
        self._refuse_unmergeable(adapter_names, safe_merge)
        super().merge_adapter(adapter_names, safe_merge)

    def merge_and_unload(
        self, progressbar: bool = False, safe_merge: bool = False, adapter_names: list[str] | None = None
    ) -> nn.Module:
        """The base model with the deltas in its weights; raises as ``merge_adapter``.

        Raises:
            MergeError: also where a delta has a bias and its linear has none. The model's configuration knows no bias
                there, so the plain model would lose it when it is saved and loaded.
        """
        self._refuse_unmergeable(adapter_names, safe_merge, for_good=True)
        return super().merge_and_unload(progressbar, safe_merge, adapter_names)

    def unload(self) -> nn.Module:
        """The base model without the deltas, also where they are merged: they are unmerged first."""
        self.unmerge_adapter()
        return super().unload()

    def add_weighted_adapter(self, *args: Any, **kwargs: Any) -> None:
        """PEFT has this for LoRA; sums of trains are made of saved folders.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError(
            "Sums of tensor-train deltas are made of saved folders; add_weighted_adapter was called: "
            "save the adapters, call adapters.combine(folders, weights, output=...) and load the sum."
        )

    def disable_adapter_layers(self) -> None:
        """Let the model compute what the base computes, the deltas' biases included."""
        self._enable_adapter_layers(enabled=False)

    def _unload_and_optionally_merge(self, *args: Any, **kwargs: Any) -> nn.Module:
        plain = super()._unload_and_optionally_merge(*args, **kwargs)
        drop_owner(plain, whole=True)
        return plain

    @contextmanager
    def _enable_peft_forward_hooks(self, *args: Any, **kwargs: Any) -> Iterator[None]:
        """PEFT opens this around each forward, with the arguments that it does not pass on."""
        for key in ("adapter_names", "alora_offsets"):
            if kwargs.get(key) is not None:
                raise ValueError(
                    f"A batch goes through the active adapters as a whole; got {key}={kwargs[key]!r}: "
                    "call set_adapter and run the examples of each adapter as a batch of their own."
                )
        yield

    def _refuse_unmergeable(self, adapter_names: list[str] | None, safe_merge: bool, for_good: bool = False) -> None:
        for path, layer in self.model.named_modules():
            if not isinstance(layer, TensorTrainPeftLinear):
                continue
            wanted = layer.active_adapters if adapter_names is None else adapter_names
            names = [name for name in wanted if name in layer.tt_lora_delta and name not in layer.merged_adapters]
            for name in names:
                if not layer.tt_lora_delta[name].is_linear:
                    raise MergeError(
                        "Only linear adapters have a dense weight to merge; got "
                        f"{name!r}, which has an activation between its cores at {path}: "
                        "evaluate it unmerged, or choose core_activation=None."
                    )
            shifted = [name for name in (*layer.merged_adapters, *names) if layer.shifts_a_linear_without_bias(name)]
            if for_good and shifted:
                raise MergeError(
                    "A linear without a bias stays without one, as the model's configuration knows none and the model "
                    f"would lose it when it is saved; got {shifted[0]!r}, which has a bias at {path}: "
                    "keep the adapter, or train it with bias='none'."
                )
            if safe_merge and names:
                layer.merged_tensors(names, safe_merge=True)

    def _prepare_model(self, peft_config: TensorTrainConfig, model: nn.Module) -> None:
        """Refuse targets that the configuration does not fit before the first of them is replaced."""
        _maybe_include_all_linear_layers(peft_config, model)
        adapter_config = peft_config.to_adapter_config()
        adapted = tuple(f"{path}." for path, layer in model.named_modules() if isinstance(layer, BaseTunerLayer))
        deltas = {}
        for path, module in model.named_modules():
            if path and not path.startswith(adapted) and self._check_target_module_exists(peft_config, path):
                base = module.base_layer if isinstance(module, TensorTrainPeftLinear) else module
                check_linear(base, path)
                with torch.device("meta"):
                    deltas[path] = adapter_config.build_at_path(path, *features(base))
        if deltas:
            check_patterns(adapter_config, deltas)
            name = next(name for name, config in self.peft_config.items() if config is peft_config)
            _check_name(name, [*model.state_dict(), *deltas, *(key for d in deltas.values() for key in d.state_dict())])
        plan(adapter_config, deltas)

    def _create_and_replace(
        self,
        peft_config: TensorTrainConfig,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
    ) -> None:
        if isinstance(target, TensorTrainPeftLinear):
            target.update_layer(adapter_name, peft_config, current_key)
        else:
            check_linear(target, current_key)
            layer = TensorTrainPeftLinear(target, adapter_name, peft_config, current_key).train(target.training)
            self._replace_module(parent, target_name, layer, target)

    def _mark_only_adapters_as_trainable(self, model: nn.Module) -> None:
        """Freeze the base; which adapters train is decided by ``set_adapter``, for whole modules by their wrappers."""
        brought_in = set()
        for module in model.modules():
            if isinstance(module, AuxiliaryTrainingWrapper):
                brought_in.update(module.parameters())
            elif isinstance(module, TensorTrainPeftLayer):
                brought_in.update(module.tt_lora_delta.parameters())
        for parameter in set(model.parameters()) - brought_in:
            parameter.requires_grad_(False)

    def _check_new_adapter_config(self, config: PeftConfig) -> None:
        """Any adapters live side by side: the biases of several deltas add up, as their weights do."""

    @classmethod
    def _remove_adapter_name_from_key(cls, key: str, adapter_name: str) -> str:
        head, found, tail = key.partition(f".tt_lora_delta.{adapter_name}.")
        return f"{head}.tt_lora_delta.{tail}" if found else super()._remove_adapter_name_from_key(key, adapter_name)


def _check_name(name: str, paths: list[str]) -> None:
    """Refuse a name that is in paths: PEFT drops the keys with another adapter's name in them when it saves one."""
    if "." in name or name in RESERVED.union(*(path.split(".") for path in paths)):
        raise ConfigurationError(
            "The name of an adapter has no dot and is no part of a path in the model, as PEFT tells the tensors of "
            f"adapters apart by parts of paths; got {name!r}: choose another name."
        )
