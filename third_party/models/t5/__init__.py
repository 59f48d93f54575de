"""T5 with adapters: the classes of transformers, subclassed."""

from third_party.models.t5.configuration_t5 import T5Config
from third_party.models.t5.modeling_t5 import T5ForConditionalGeneration

__all__ = ["T5Config", "T5ForConditionalGeneration"]
