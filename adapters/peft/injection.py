"""Adding an adapter to a model: what PEFT's injection finds, checks and replaces.

    a linear            nn.Linear, Conv1D, quantised   ->  TensorTrainPeftLinear, TensorTrainPeftQuantisedLinear
    a stack of experts  target_parameters              ->  TensorTrainPeftExperts in place of the module that holds it
    what deltas share                                  ->  model.shared_by_deltas, see ``adapters.peft.shared``

All is checked, with deltas on the meta device, before the first target is replaced.
"""

import warnings
from contextlib import nullcontext
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer, _maybe_include_all_linear_layers
from peft.utils import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING
from peft.utils.integrations import init_empty_weights
from peft.utils.other import _get_submodules
from torch import nn

from adapters.base.architectures import T5
from adapters.base.linear_layers import features, is_plain_linear
from adapters.base.weight_readers import check_is_called
from adapters.compiled import compiled_in_place
from adapters.peft.adapter_names import check_new_name
from adapters.peft.configuration import PREFIX, TensorTrainConfig
from adapters.peft.experts import TensorTrainPeftExperts, base_of, deltas_of_stack
from adapters.peft.layer import TensorTrainPeftLayer
from adapters.peft.linear import TensorTrainPeftLinear
from adapters.peft.parameters import check_fields, chosen_stacks
from adapters.peft.placement import replace_roles
from adapters.peft.quantised import TensorTrainPeftQuantisedLinear, backend_of, check_supported, keep_unpacked
from adapters.peft.selection import check_selection
from adapters.peft.shared import plan, share_in
from adapters.peft.sites import places_of
from adapters.peft.wrapped_again import (
    activate_whole_modules,
    configurations_kept,
    remove_earlier,
    without_wrapper,
)
from adapters.sharded import is_partitioned
from adapters.tensor_train.patterns import check_patterns

DELTA = ".tt_lora_delta."
"""Part of the path of the Parameters of a delta."""
T5_FEED_FORWARD = [path.rpartition(".")[2] for _, path in T5.layouts[-1].linears]
"""The default of target_modules in a T5, which has only some of them."""


class TensorTrainInjection(BaseTuner):
    """The part of ``TensorTrainModel`` that adds adapters."""

    prefix = PREFIX
    tuner_layer_cls = TensorTrainPeftLayer
    target_module_mapping = {  # noqa: RUF012 - a plain class attribute in PEFT
        **TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING,
        **dict.fromkeys(T5.model_types, T5_FEED_FORWARD),
    }

    def __init__(self, model: Any, *args: Any, **kwargs: Any) -> None:
        with configurations_kept(model):
            super().__init__(model, *args, **kwargs)

    def __setattr__(self, name: str, value: Any) -> None:
        """Hold the model itself if it is compiled, see ``compiled_in_place``, or has been wrapped by this tuner."""
        super().__setattr__(name, without_wrapper(compiled_in_place(value)) if name == "model" else value)

    def inject_adapter(self, model: nn.Module, adapter_name: str, *args: Any, **kwargs: Any) -> None:
        """Add one adapter as PEFT does, then let its deltas share Parameters.

        The keys of a ``state_dict`` tell PEFT which linears have a delta. For an adapter that shares cores it is not
        passed on, as a linear may have only shared tensors; ``target_modules`` decides then. Nor is it for one with
        ``target_parameters``.
        """
        self._name_to_add = adapter_name  # for _prepare_model: several names may have one configuration
        config = self.peft_config[adapter_name] = self.peft_config[adapter_name].before_settling()
        model, active = compiled_in_place(model), self.active_adapters
        if config.to_adapter_config().shared_slots() or config.target_parameters:
            args, kwargs = args[:2], {key: value for key, value in kwargs.items() if key != "state_dict"}
        with config.settling(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The following rank_pattern keys did not match")  # in a list of modules
            super().inject_adapter(model, adapter_name, *args, **kwargs)
        if adapter_name in active:
            activate_whole_modules(model, adapter_name, config.inference_mode)
        trains = adapter_name in active and not config.inference_mode
        share_in(model, adapter_name, config.to_adapter_config(), active, trains)

    def _cast_adapter_dtype(self, adapter_name: str, autocast_adapter_dtype: bool = True) -> None:
        """Give one adapter the dtype of its configuration; PEFT calls this for each new one."""
        if self.peft_config[adapter_name].delta_dtype != "base":
            super()._cast_adapter_dtype(adapter_name, autocast_adapter_dtype)
            return
        base = (parameter for path, parameter in self.model.named_parameters() if DELTA not in path)
        dtype = next(parameter.dtype for parameter in base if parameter.is_floating_point())
        for layer in self.model.modules():
            if isinstance(layer, TensorTrainPeftLayer) and adapter_name in layer.tt_lora_delta:
                layer.tt_lora_delta[adapter_name].to(dtype)

    def _prepare_model(self, peft_config: TensorTrainConfig, model: nn.Module) -> None:
        """Check that the configuration fits the model before the first of its targets is replaced."""
        keep_unpacked(model)
        adapted = tuple(f"{path}." for path, layer in model.named_modules() if isinstance(layer, BaseTunerLayer))
        modules = {path: m for path, m in model.named_modules() if path and not path.startswith(adapted)}
        if not peft_config.inference_mode:  # a loaded adapter has its tensors, whatever its configuration names
            replace_roles(peft_config, model, modules)
            default = self.target_module_mapping.get(self.get_model_config(model).get("model_type"))
            linears = [
                path
                for path, m in modules.items()
                if isinstance(m, TensorTrainPeftLinear) or is_plain_linear(m) or backend_of(m, model)
            ]
            check_selection(peft_config, modules.keys(), linears, default)
        _maybe_include_all_linear_layers(peft_config, model)
        adapter_config = peft_config.to_adapter_config()
        deltas, weights = {}, []
        for path, module in modules.items():
            if self._check_target_module_exists(peft_config, path):
                is_adapted = isinstance(module, TensorTrainPeftLinear)
                base = module.base_layer if is_adapted else module
                check_is_called(model, path)
                check_supported(base, model, path)
                with torch.device("meta"):
                    deltas[path] = adapter_config.build_at_path(path, *features(base))
                if is_plain_linear(base) and not is_partitioned(base.weight):
                    weights.append(module.base_tensor("weight") if is_adapted else base.weight.data)
        check_fields(peft_config, deltas)
        for path, module in chosen_stacks(peft_config, model).items():
            with torch.device("meta"):
                deltas[path] = deltas_of_stack(peft_config, base_of(module), path)
            stack = path.rpartition(".")[2]
            weights.append(module.base_tensor(stack) if base_of(module) is not module else getattr(module, stack).data)
        if deltas:
            check_patterns(adapter_config, deltas)
            name = self._name_to_add
            own = (f"{DELTA}{name}.", f".modules_to_save.{name}.")  # of an earlier adapter that this one replaces
            keys = [key for key in model.state_dict() if not any(part in key for part in own)]
            check_new_name(name, [*keys, *deltas, *(key for d in deltas.values() for key in d.state_dict())])
        plan(adapter_config, deltas)
        peft_config.settle(adapter_config.settled([(place, deltas[place.path]) for place in places_of(deltas)]))
        # codes of a quantised base are not the values that others are compared with, and ZeRO-3 left none here
        if len(weights) == len(deltas):
            peft_config.note_base(weights)
        if deltas:
            remove_earlier(model, name)

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
            backend = backend_of(target, self.model)
            args = (target, adapter_name, peft_config, current_key)
            layer = TensorTrainPeftQuantisedLinear(*args, backend) if backend else TensorTrainPeftLinear(*args)
            self._replace_module(parent, target_name, layer.train(target.training), target)

    def _replace_module(self, parent: nn.Module, child_name: str, new_module: nn.Module, child: nn.Module) -> None:
        """Put a base layer back as it is, where PEFT would look for a weight, which it may have under other names."""
        if new_module is getattr(child, "base_layer", None):
            setattr(parent, child_name, new_module)
        else:
            super()._replace_module(parent, child_name, new_module, child)

    def _inject_parameters(
        self, peft_config: TensorTrainConfig, model: nn.Module, adapter_name: str, low_cpu_mem_usage: bool
    ) -> list[str]:
        """Add deltas to the stacks of expert weights; PEFT's own method is made for one layer per Parameter."""
        paths = list(chosen_stacks(peft_config, model))
        for path in paths:
            parent, target, name = _get_submodules(model, path.rpartition(".")[0])
            layer = TensorTrainPeftExperts(target, adapter_name) if base_of(target) is target else target
            with init_empty_weights() if low_cpu_mem_usage else nullcontext():
                layer.update_layer(adapter_name, peft_config, path)
            setattr(parent, name, layer.train(target.training))
        return paths
