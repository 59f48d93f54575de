"""The tuner: PEFT's switching, merging, summing and saving, for the deltas that ``adapters.peft.injection`` adds.

keys in the model       ...wi.tt_lora_delta.<adapter name>.linear.cores.0
keys in a checkpoint    ...wi.tt_lora_delta.linear.cores.0
torch.compile(model)    compiled in place, so that these names are the same
"""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

from peft import PeftConfig
from torch import Tensor, nn

from adapters.algebra import ApproximationReport
from adapters.algebra.combination import Shape
from adapters.compiled import compiled_in_place, original_path
from adapters.peft.adapter_names import check_list_of_names, check_names
from adapters.peft.injection import DELTA, TensorTrainInjection
from adapters.peft.layer import Switched, as_when_enabled, freeze_when_disabled
from adapters.peft.mergeable import check_mergeable, warn_of_lost, warn_of_rounding
from adapters.peft.mixed_batch import adapters_by_row
from adapters.peft.precision import widen, widen_alone
from adapters.peft.saved_base import at_present_layers, check_not_empty, put_unmerged
from adapters.peft.shared import drop_owner
from adapters.peft.weighted_sum import config_of_sum, fill, sum_of
from adapters.saved.folder import PEFT_PREFIX, CheckpointError


class TensorTrainModel(TensorTrainInjection):
    """The model inside the ``PeftModel`` that ``get_peft_model(model, TensorTrainConfig(...))`` returns."""

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

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], *args: Any, **kwargs: Any) -> None:
        """Load values; those of adapters alone reach merged weights after an unmerge, of which a warning tells."""
        widen_alone(self.model, self._float32_adapters())
        merged = any(getattr(layer, "merged_adapters", ()) for layer in self._switched())
        if merged and any(DELTA in key for key in state_dict) and not any(".base_layer." in key for key in state_dict):
            warnings.warn(
                "Merged weights hold the deltas that were merged; got new values for them, so that the adapters were "
                "unmerged: call merge_adapter again.",
                stacklevel=2,
            )
            self.unmerge_adapter()
        super()._load_from_state_dict(state_dict, *args, **kwargs)

    def _float32_adapters(self) -> list[str]:
        return [name for name, config in self.peft_config.items() if config.delta_dtype != "base"]

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

    @classmethod
    def _get_adapter_state_dict(
        cls,
        model: nn.Module,
        config: PeftConfig,
        adapter_name: str,
        state_dict: dict[str, Tensor],
        unwanted_adapter_names: list[str],
    ) -> dict[str, Tensor]:
        """The tensors for a file, unmerged; also in ``state_dict``, from which PEFT takes output layers later.

        Raises:
            CheckpointError: one of them is empty, as ZeRO-3 leaves it.
        """
        put_unmerged(model, state_dict)
        found = super()._get_adapter_state_dict(model, config, adapter_name, state_dict, unwanted_adapter_names)
        check_not_empty(found)
        return found

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
        deltas = {key: tensor for key, tensor in found.items() if DELTA in key}
        for key in deltas:
            if key not in known:
                raise CheckpointError(
                    "An adapter loads into the linears that it was trained on; got a delta at "
                    f"{key.partition(DELTA)[0].removeprefix(PEFT_PREFIX)}, which the model does not have: load it into "
                    "its own base model."
                )
        others = {key: tensor for key, tensor in found.items() if DELTA not in key}
        return deltas | at_present_layers(others, known)
