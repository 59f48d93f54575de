"""The base class of the tuner's layers: their Parameters are in one module for each adapter."""

from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn


class TensorTrainPeftLayer(nn.Module, BaseTunerLayer):
    """A layer of this tuner; ``tt_lora_delta`` has one entry for each adapter."""

    adapter_layer_names = ("tt_lora_delta",)

    def __init__(self) -> None:
        super().__init__()
        self.tt_lora_delta = nn.ModuleDict()
