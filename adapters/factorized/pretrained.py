"""A factorized model in folders of transformers: what is replaced is in config.json, beside the rest of the model.

    "quantization_config": {"quant_method": "factorized", "modules": {"model.layers.0.mlp.up_proj": {...}, ...}}

transformers asks the registered method of that name to prepare the skeleton of a model, on the meta device, before
the tensors are loaded. So ``from_pretrained`` reads such a folder once ``adapters`` is imported, and dense weights are
never allocated. Nothing is quantised: a loaded model is an ordinary one, which trains, changes its dtype and saves.
"""

from typing import Any

from torch import nn
from transformers import PreTrainedModel
from transformers.quantizers.auto import register_quantization_config, register_quantizer
from transformers.quantizers.base import HfQuantizer
from transformers.utils.quantization_config import QuantizationConfigMixin

from adapters.base.linear_layers import keep_children
from adapters.factorized.embedding import retie
from adapters.factorized.layers import FactorizedLinear, NetworkSpec, factorized_like, factorized_modules
from adapters.validation import ConfigurationError

METHOD = "factorized"
KEY = "quantization_config"


@register_quantization_config(METHOD)
class FactorizedWeights(QuantizationConfigMixin):
    """The networks of a model by path, as config.json has them."""

    def __init__(self, modules: dict[str, dict[str, Any]], quant_method: str = METHOD) -> None:
        self.quant_method = quant_method
        self.modules = modules


@register_quantizer(METHOD)
class FactorizedLoader(HfQuantizer):
    """Puts networks without values into the skeleton of a model."""

    def _process_model_before_weight_loading(self, model: PreTrainedModel, **kwargs: Any) -> None:
        put_networks(model, {path: NetworkSpec.from_dict(v) for path, v in self.quantization_config.modules.items()})

    def _process_model_after_weight_loading(self, model: PreTrainedModel, **kwargs: Any) -> None:
        for module in factorized_modules(model).values():
            module.freeze_cores()
        self.remove_quantization_config(model)
        refresh_configuration(model)

    def postprocess_model(self, model: PreTrainedModel, **kwargs: Any) -> None:
        self._process_model_after_weight_loading(model, **kwargs)

    def is_serializable(self) -> bool:
        return True

    @property
    def is_trainable(self) -> bool:
        return True


def put_networks(model: nn.Module, specs: dict[str, NetworkSpec]) -> None:
    """Put networks without values in the place of linears and embeddings of a model, by path."""
    paths = {path for path, _ in model.named_modules()}
    prefix = getattr(model, "base_model_prefix", "")
    made: dict[str, FactorizedLinear] = {}
    for path, spec in specs.items():
        if spec.is_borrowed(path) and path not in paths:
            continue  # a model without the output projection that is tied to the embedding
        place = _path_here(path, paths, prefix)
        linear = model.get_submodule(place)
        made[place] = factorized_like(linear, spec).to(linear.weight.dtype)
        model.set_submodule(place, made[place])
        keep_children(model.get_submodule(place.rpartition(".")[0]))
    owners = {
        place: _path_here(module.spec.owner, {*made}, prefix)
        for place, module in made.items()
        if module.spec.owner is not None
    }
    for place in sorted(owners, key=lambda place: owners[place] != place):  # owners first
        made[place].share_cores(made[owners[place]])


def refresh_configuration(model: nn.Module) -> None:
    """Let the configuration of each model of transformers in a module name its factorized weights, or none."""
    for saved in saved_models(model):
        retie(saved)
        modules = {path: module.spec.to_dict() for path, module in factorized_modules(saved).items()}
        if modules:
            saved.config.quantization_config = FactorizedWeights(modules)
        elif noted_method(saved) == METHOD:
            del saved.config.quantization_config


def saved_models(model: nn.Module) -> list[PreTrainedModel]:
    """The model itself if it is one of transformers, else those that it wraps, as a model of PEFT does.

    Not the models within these: they share the configuration, or theirs is a part of it, and are saved with it.
    """
    if isinstance(model, PreTrainedModel):
        return [model]
    return [saved for child in model.children() for saved in saved_models(child)]


def noted_method(model: PreTrainedModel) -> str | None:
    """The quantisation method in the configuration of a model, factorized weights included."""
    return getattr(getattr(model.config, KEY, None), "quant_method", None)


def check_not_quantised(model: nn.Module) -> None:
    """Refuse models of transformers that are quantised, or looped: one configuration cannot describe both."""
    for saved in saved_models(model):
        noted = noted_method(saved)
        method = getattr(saved, "quantization_method", None) or (None if noted == METHOD else noted)
        if method is not None:
            name = getattr(method, "value", method)
            raise ConfigurationError(
                f"A model to factorize has dense floating-point weights; got one of the quantisation method {name!r}: "
                "load it without."
            )


def _path_here(path: str, paths: set[str], prefix: str) -> str:
    """The path of a module that was saved from a model with another head, or without one."""
    candidates = (path, path.removeprefix(f"{prefix}."), f"{prefix}.{path}")
    found = next((candidate for candidate in candidates if candidate in paths), None)
    if found is None:
        raise ConfigurationError(
            f"The factorized weights of a folder belong to linears of its model; got {path!r}, which it does not have: "
            "load it by the class in its config.json."
        )
    return found
