"""A looped transformer: one stack of blocks that is applied several times.

configuration     sizes, and the options of loops, injection and positions
masks             which positions see which, and whose state is kept
modeling          the model, and what it returns
causal            the same on token ids, with ``generate``

from_pretrained   the layers of a pretrained model as loops of a few blocks
depth_deltas      which of its linears share a weight, and the network of each depth
shared_linear     a linear whose weight belongs to another one
folders           such a model in a folder of transformers
"""

from third_party.models.looped.causal import LoopedForCausalLM
from third_party.models.looped.configuration import Injection, LoopedConfig, Loops, Positions
from third_party.models.looped.depth_deltas import DepthDeltas
from third_party.models.looped.from_pretrained import LoopReport, loop
from third_party.models.looped.modeling import LoopedModel, LoopedOutput

__all__ = [
    "DepthDeltas",
    "Injection",
    "LoopReport",
    "LoopedConfig",
    "LoopedForCausalLM",
    "LoopedModel",
    "LoopedOutput",
    "Loops",
    "Positions",
    "loop",
]
