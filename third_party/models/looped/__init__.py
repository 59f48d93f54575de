"""A looped transformer: one stack of blocks that is applied several times.

configuration    sizes, and the options of loops, injection and positions
masks            which positions see which, and whose state is kept
modeling         the model, and what it returns
"""

from third_party.models.looped.configuration import Injection, LoopedConfig, Loops, Positions
from third_party.models.looped.modeling import LoopedModel, LoopedOutput

__all__ = ["Injection", "LoopedConfig", "LoopedModel", "LoopedOutput", "Loops", "Positions"]
