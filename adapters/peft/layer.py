"""What the layers of this tuner have in common: the place of their Parameters, by adapter."""

from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn


class TensorTrainPeftLayer(nn.Module, BaseTunerLayer):
    """A layer that PEFT knows as the tuner's own; ``tt_lora_delta`` is a ModuleDict with one entry an adapter."""

    adapter_layer_names = ("tt_lora_delta",)

    def __init__(self) -> None:
        super().__init__()
        self.tt_lora_delta = nn.ModuleDict()
