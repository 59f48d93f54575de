"""The frozen T5, from a directory, the local cache or the hub.

If the hub does not answer one quick question, only the cache is asked; transformers would try for most of a minute.
"""

import torch

from seq2seq.errors import refusing
from seq2seq.tasks.hub import only_local
from third_party.models.t5 import T5Config, T5ForConditionalGeneration


def load_backbone(location: str, dtype: str, random: bool = False) -> T5ForConditionalGeneration:
    """The model without adapters, pretrained, or of the same architecture with random weights.

    Args:
        location: a directory, or a name in the cache or on the hub.
        dtype: "float32" or "bfloat16".

    Raises:
        ConfigurationError: it cannot be loaded from there.
    """
    local = only_local(location)
    with refusing("model_name_or_path", location):
        if random:
            config = T5Config.from_pretrained(location, local_files_only=local)
            return T5ForConditionalGeneration(config).to(getattr(torch, dtype))
        return T5ForConditionalGeneration.from_pretrained(location, local_files_only=local, dtype=getattr(torch, dtype))
