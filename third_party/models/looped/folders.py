"""A looped pretrained model in folders of transformers: how its layers share weights is in config.json.

    "quantization_config": {"quant_method": "looped", "n_layer": 5, "deltas": {"rank": 16, ...}}

transformers asks the registered method of that name to prepare the skeleton of a model before the tensors are loaded,
as for ``adapters.factorized.pretrained``. So ``from_pretrained`` reads such a folder once this package is imported.
Nothing is quantised.
"""

from dataclasses import asdict
from typing import Any

from transformers import PreTrainedModel
from transformers.quantizers.auto import register_quantization_config, register_quantizer
from transformers.quantizers.base import HfQuantizer
from transformers.utils.quantization_config import QuantizationConfigMixin

from adapters.validation import refuse
from third_party.models.looped.depth_deltas import WHERE, DepthDeltas, as_deltas, share_weights

METHOD = "looped"


@register_quantization_config(METHOD)
class SharedLayers(QuantizationConfigMixin):
    """What config.json says: the arguments of ``loop`` that determine names and shapes of tensors."""

    def __init__(self, n_layer: int, deltas: dict[str, Any] | None = None, quant_method: str = METHOD) -> None:
        self.quant_method = quant_method
        self.n_layer, self.deltas = n_layer, deltas


@register_quantizer(METHOD)
class LoopLoader(HfQuantizer):
    """Lets the layers of a skeleton share their weights."""

    def _process_model_before_weight_loading(self, model: PreTrainedModel, **kwargs: Any) -> None:
        share_weights(model, self.quantization_config.n_layer, as_deltas(self.quantization_config.deltas))

    def _process_model_after_weight_loading(self, model: PreTrainedModel, **kwargs: Any) -> None:
        config = self.quantization_config
        self.remove_quantization_config(model)
        note_loops(model, config.n_layer, as_deltas(config.deltas))

    def postprocess_model(self, model: PreTrainedModel, **kwargs: Any) -> None:
        self._process_model_after_weight_loading(model, **kwargs)

    def is_serializable(self) -> bool:
        return True

    @property
    def is_trainable(self) -> bool:
        return True


def share_as_noted(model: PreTrainedModel) -> PreTrainedModel:
    """Let the layers of a model with random weights share them if its configuration says so, in place."""
    noted = getattr(model.config, "quantization_config", None)
    if isinstance(noted, dict) and noted.get("quant_method") == METHOD:
        deltas = as_deltas(noted.get("deltas"))
        share_weights(model, noted["n_layer"], deltas)
        note_loops(model, noted["n_layer"], deltas)
    return model


def check_dense(model: PreTrainedModel) -> None:
    """Refuse a model whose configuration describes other weights, quantised or factorized ones: it holds one method."""
    if (noted := getattr(model.config, "quantization_config", None)) is not None:
        given = f"the quantization method {getattr(noted, 'quant_method', noted)!r}"
        refuse("model", "has dense weights", given, "loop it before it is factorized, and without quantization", WHERE)


def note_loops(model: PreTrainedModel, n_layer: int, deltas: DepthDeltas | None) -> None:
    """Let the configuration of a model say how its layers share weights."""
    model.config.quantization_config = SharedLayers(n_layer, None if deltas is None else asdict(deltas))
