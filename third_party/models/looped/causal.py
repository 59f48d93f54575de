"""LoopedForCausalLM: a looped transformer on token ids as a language model of transformers, with ``generate``."""

from typing import Any

from torch import Tensor
from transformers import AutoModelForCausalLM, GenerationMixin

from adapters.validation import refuse
from third_party.models.looped.configuration import LoopedConfig
from third_party.models.looped.modeling import LoopedModel, LoopedOutput

WHERE = "a looped language model"


class LoopedForCausalLM(LoopedModel, GenerationMixin):
    """A ``LoopedModel`` on tokens; without a cache, as every loop would need its own keys and values.

    Args:
        config: without ``input_size`` and ``output_size``.

    Raises:
        ConfigurationError: it reads or predicts vectors.
    """

    main_input_name = "input_ids"

    def __init__(self, config: LoopedConfig) -> None:
        for key in ("input_size", "output_size"):
            if (value := getattr(config, key)) is not None:
                refuse(key, "is that of vectors", value, "leave it out", WHERE)
        super().__init__(config)

    @classmethod
    def _supports_default_dynamic_cache(cls) -> bool:
        return False

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, num_loops: int | None = None, **options: Any
    ) -> LoopedOutput:
        """Run the loops.

        Args:
            input_ids: (batch, length).
            attention_mask: (batch, length), all ones: padding is not supported.
            num_loops: b; None for that of the configuration.
            options: ``read_last`` and ``output_states`` of ``LoopedModel``; those that ``generate`` adds are unused.
        """
        if attention_mask is not None and not attention_mask.all():
            refuse("attention_mask", "is all ones", "a mask with padding", "use texts of one length", WHERE)
        known = {key: options[key] for key in ("read_last", "output_states") if key in options}
        return super().forward(input_ids, num_loops, **known)

    def prepare_inputs_for_generation(self, input_ids: Tensor, **kwargs: Any) -> dict[str, Any]:
        """The whole text at each step; only the last loop is read out."""
        loops = {"num_loops": kwargs["num_loops"]} if "num_loops" in kwargs else {}
        return {"input_ids": input_ids, "attention_mask": kwargs.get("attention_mask"), "read_last": 1, **loops}


AutoModelForCausalLM.register(LoopedConfig, LoopedForCausalLM)
