"""The tuner: PEFT's injection, saving and switching, for TT deltas.

model.encoder.block.0...wi      nn.Linear  ->  TensorTrainPeftLinear
keys in the model               ...wi.tt_lora_delta.<adapter name>.linear.cores.0
keys in a checkpoint            ...wi.tt_lora_delta.linear.cores.0
what deltas share               model.shared_by_deltas, see ``adapters.peft.shared``
torch.compile(model)            compiled in place, so that these names are the same
"""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from peft import PeftConfig
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer, _maybe_include_all_linear_layers
from peft.utils import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING
from peft.utils.integrations import init_empty_weights
from peft.utils.other import _get_submodules
from torch import Tensor, nn

from adapters.algebra import ApproximationReport
from adapters.algebra.combination import Shape
from adapters.base.architectures import T5
from adapters.base.linear_layers import features, is_plain_linear
from adapters.base.weight_readers import check_is_called
from adapters.compiled import compiled_in_place, original_path
from adapters.peft.adapter_names import check_list_of_names, check_names, check_new_name
from adapters.peft.configuration import PREFIX, TensorTrainConfig
from adapters.peft.experts import TensorTrainPeftExperts, base_of, deltas_of_stack
from adapters.peft.layer import Switched, TensorTrainPeftLayer, as_when_enabled, freeze_when_disabled
from adapters.peft.linear import TensorTrainPeftLinear
from adapters.peft.mergeable import check_mergeable, warn_of_lost, warn_of_rounding
from adapters.peft.mixed_batch import adapters_by_row
from adapters.peft.parameters import check_fields, chosen_stacks
from adapters.peft.placement import replace_roles
from adapters.peft.precision import widen, widen_alone
from adapters.peft.quantised import TensorTrainPeftQuantisedLinear, backend_of, check_supported, keep_unpacked
from adapters.peft.selection import check_selection
from adapters.peft.shared import drop_owner, plan, share_in
from adapters.peft.sites import places_of
from adapters.peft.weighted_sum import config_of_sum, fill, sum_of
from adapters.peft.wrapped_again import remove_earlier, without_wrapper
from adapters.saved.folder import PEFT_PREFIX, CheckpointError
from adapters.tensor_train.patterns import check_patterns

DELTA = ".tt_lora_delta."
T5_FEED_FORWARD = [path.rpartition(".")[2] for _, path in T5.layouts[-1].linears]
"""The default of target_modules in a T5, which has only some of them."""


class TensorTrainModel(BaseTuner):
    """The model inside the ``PeftModel`` that ``get_peft_model(model, TensorTrainConfig(...))`` returns."""

    prefix = PREFIX
    tuner_layer_cls = TensorTrainPeftLayer
    target_module_mapping = {  # noqa: RUF012 - a plain class attribute in PEFT
        **TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING,
        **dict.fromkeys(T5.model_types, T5_FEED_FORWARD),
    }

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
        trains = adapter_name in active and not config.inference_mode
        share_in(model, adapter_name, config.to_adapter_config(), active, trains)

    def set_adapter(self, adapter_name: str | list[str], inference_mode: bool = False) -> None:
        """Make adapters active, and trainable unless ``inference_mode``; merged ones are unmerged first.

        Raises:
            ConfigurationError: the model has no adapter of such a name.
        """
        check_names(adapter_name, self.peft_config)
        with as_when_enabled(self._switched()):
            super().set_adapter(adapter_name, inference_mode)

    def set_requires_grad(self, adapter_names: str | Sequence[str], requires_grad: bool = True) -> None:
        """Freeze adapters or let them train.

        Raises:
            ConfigurationError: the model has no adapter of such a name.
        """
        check_names(adapter_names, self.peft_config)
        with as_when_enabled(self._switched()):
            super().set_requires_grad(adapter_names, requires_grad)

    def widen_deltas(self) -> None:
        """Cast deltas that someone has cast to a narrower dtype to float32 again; see ``adapters.peft.precision``."""
        widen(self.model, self._float32_adapters())

    def train(self, mode: bool = True) -> nn.Module:
        if mode:
            widen_alone(self.model, self._float32_adapters())
        return super().train(mode)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        widen_alone(self.model, self._float32_adapters())
        super()._load_from_state_dict(*args, **kwargs)

    def _float32_adapters(self) -> list[str]:
        return [name for name, config in self.peft_config.items() if config.delta_dtype != "base"]

    def _cast_adapter_dtype(self, adapter_name: str, autocast_adapter_dtype: bool = True) -> None:
        """Give one adapter the dtype of its configuration; PEFT calls this for each new one."""
        if self.peft_config[adapter_name].delta_dtype != "base":
            super()._cast_adapter_dtype(adapter_name, autocast_adapter_dtype)
            return
        dtype = next(parameter.dtype for parameter in self.model.parameters() if parameter.is_floating_point())
        for layer in self.model.modules():
            if isinstance(layer, TensorTrainPeftLayer) and adapter_name in layer.tt_lora_delta:
                layer.tt_lora_delta[adapter_name].to(dtype)

    def delete_adapter(self, adapter_name: str) -> None:
        """Remove one adapter, with the Parameters that its deltas share; what else is frozen stays frozen."""
        trainable = {parameter for parameter in self.parameters() if parameter.requires_grad}
        stay_active = [name for name in self.active_adapters if name != adapter_name]
        super().delete_adapter(adapter_name)
        drop_owner(self.model)
        if stay_active:
            for parameter in self.parameters():
                parameter.requires_grad_(parameter in trainable)
        else:
            self.set_requires_grad([n for n in self.active_adapters if self.peft_config[n].inference_mode], False)

    def merge_adapter(self, adapter_names: list[str] | None = None, safe_merge: bool = False) -> None:
        """Merge in place, until ``unmerge_adapter``; see ``TensorTrainPeftLinear.merge``.

        Active adapters that are not merged go on acting, and training, beside the merged weight.

        Args:
            adapter_names: those to merge; None for the active ones.
            safe_merge: check that the merged weights are finite.

        Raises:
            ConfigurationError: the model has no adapter of such a name.
            MergeError: one of the adapters is not linear, or ``safe_merge`` found infinities or NaN. The model is
                unchanged.
        """
        check_list_of_names(adapter_names, self.peft_config)
        check_mergeable(self.model, adapter_names, safe_merge)
        warn_of_rounding(self.model, adapter_names)
        super().merge_adapter(adapter_names, safe_merge)

    def merge_and_unload(
        self, progressbar: bool = False, safe_merge: bool = False, adapter_names: list[str] | None = None
    ) -> nn.Module:
        """The base model with the deltas in its weights; raises as ``merge_adapter``.

        A warning names the active adapters that are not in ``adapter_names``, as the plain model is without them.

        Raises:
            MergeError: also for a delta with a bias beside a linear without one, as the model's configuration has no
                bias there, so that the plain model would lose it when it is saved and loaded; and for named adapters
                whose modules_to_save are not those of the active adapter, which the plain model gets.
        """
        check_list_of_names(adapter_names, self.peft_config)
        check_mergeable(self.model, adapter_names, safe_merge, unload=True)
        warn_of_lost(self.model, adapter_names)
        warn_of_rounding(self.model, adapter_names)
        return super().merge_and_unload(progressbar, safe_merge, adapter_names)

    def unload(self) -> nn.Module:
        """The base model without the deltas, which are unmerged first."""
        self.unmerge_adapter()
        return super().unload()

    def add_weighted_adapter(
        self,
        adapters: Sequence[str],
        weights: Sequence[float],
        adapter_name: str,
        *,
        shape: Shape | None = None,
        max_rank: int | Sequence[int] | None = None,
        rel_tol: float | None = None,
    ) -> ApproximationReport:
        """Add the adapter sum_i w_i x_i, neither active nor trainable, as PEFT's LoRA does; the others are unchanged.

        Args:
            adapters, weights: the names of the x_i, and the w_i, not normalised.
            adapter_name: a new name.
            shape, max_rank, rel_tol: see ``adapters.combine``; by default the sum is exact, and ranks add. Adapters of
                different raw shapes need a ``shape``.

        Returns:
            The error of rounding.

        Raises:
            ConfigurationError: an adapter is unknown or not linear, or trains something else too (modules_to_save,
                target_parameters, bias); or the new name is taken or not valid. The model is unchanged.
            ValueError: weights or the shape are invalid, or raw shapes differ without ``shape``. Likewise.
        """
        total, report = sum_of(self, adapters, weights, adapter_name, shape, max_rank, rel_tol)
        self.peft_config[adapter_name] = config_of_sum(self.peft_config[adapters[0]], total, self.model)
        try:
            self.inject_adapter(self.model, adapter_name)
        except Exception:
            del self.peft_config[adapter_name]
            raise
        fill(self.model, adapter_name, total)
        return report

    def _enable_adapter_layers(self, enabled: bool = True) -> None:
        """Switch adapters on or off; what trains when they are on again is what trained before."""
        for module in self._switched():
            if not enabled:
                freeze_when_disabled(module, True)
            if module.disable_adapters == enabled:
                module.enable_adapters(enabled)
            if enabled:
                freeze_when_disabled(module, False)

    def _switched(self) -> list[Switched]:
        return [module for module in self.model.modules() if isinstance(module, Switched)]

    def _unload_and_optionally_merge(self, *args: Any, **kwargs: Any) -> nn.Module:
        plain = compiled_in_place(super()._unload_and_optionally_merge(*args, **kwargs))
        drop_owner(plain, whole=True)
        return plain

    @contextmanager
    def _enable_peft_forward_hooks(self, *args: Any, **kwargs: Any) -> Iterator[None]:
        """Act on the arguments that PEFT keeps from the forward; it opens this context around each one."""
        if kwargs.get("alora_offsets") is not None:
            raise ValueError(
                f"Deltas act on all tokens; got alora_offsets={kwargs['alora_offsets']!r}, which PEFT has for LoRA: "
                "leave it out."
            )
        names = kwargs.get("adapter_names")
        with nullcontext() if names is None else adapters_by_row(self, names, kwargs):
            yield

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
                if is_plain_linear(base):
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
        if len(weights) == len(deltas):  # codes of a quantised base are not the values that others are compared with
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

    @classmethod
    def _remove_adapter_name_from_key(cls, key: str, adapter_name: str) -> str:
        """The name in a file; that of the original module if a part of the model has been compiled since."""
        head, found, tail = original_path(key).partition(f".tt_lora_delta.{adapter_name}.")
        return f"{head}.tt_lora_delta.{tail}" if found else super()._remove_adapter_name_from_key(head, adapter_name)

    @classmethod
    def _remap_adapter_state_dict_for_load(
        cls, model: nn.Module, config: PeftConfig, adapter_name: str, state_dict: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """The tensors of a file under their names in the model.

        Raises:
            CheckpointError: the model has no place for one of them.
        """
        named = {original_path(key) if DELTA in key else key: tensor for key, tensor in state_dict.items()}
        found = super()._remap_adapter_state_dict_for_load(model, config, adapter_name, named)
        known = {key for key, _ in model.named_parameters(remove_duplicate=False)}
        for key in found:
            if DELTA in key and key not in known:
                raise CheckpointError(
                    "An adapter loads into the linears that it was trained on; got a delta at "
                    f"{key.partition(DELTA)[0].removeprefix(PEFT_PREFIX)}, which the model does not have: load it into "
                    "its own base model."
                )
        return found
