"""LoopedForCausalLM: a looped transformer on token ids as a language model of transformers, with ``generate``."""

from typing import Any

from torch import Tensor
from transformers import AutoModelForCausalLM, GenerationMixin

from adapters.validation import check_keys, refuse
from third_party.models.looped.configuration import LoopedConfig
from third_party.models.looped.modeling import LoopedModel, LoopedOutput

WHERE = "a looped language model"
READ = ("read_last", "output_states")
OF_GENERATE = ("use_cache", "past_key_values", "position_ids", "return_dict", "logits_to_keep", "next_sequence_length")
"""Options that transformers gives every language model."""
NOT_RETURNED = ("output_hidden_states", "output_attentions")


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
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        num_loops: int | None = None,
        num_items_in_batch: Tensor | int | None = None,
        **options: Any,
    ) -> LoopedOutput:
        """Run the loops.

        Args:
            input_ids: (batch, length).
            attention_mask: (batch, length), all ones: padding is not supported.
            labels: (batch, length), for the loss of the last loop: the mean cross-entropy of the next tokens that are
                not -100.
            num_loops: b; None for that of the configuration.
            num_items_in_batch: labels of all batches whose gradients are accumulated, by which a ``Trainer`` lets the
                sum of the cross-entropies be divided; None for those of this batch.
            options: ``read_last`` and ``output_states`` of ``LoopedModel``; those of ``generate`` are unused.

        Raises:
            ConfigurationError: there is padding, or an unknown option; also what ``LoopedModel`` raises.
        """
        if attention_mask is not None and not attention_mask.all():
            refuse("attention_mask", "is all ones", "a mask with padding", "use texts of one length", WHERE)
        check_returned(options)
        check_keys([key for key in options if key not in (*OF_GENERATE, *NOT_RETURNED)], READ, WHERE)
        read = {key: options[key] for key in READ if key in options}
        output = super().forward(input_ids, num_loops, **read)
        if labels is not None:
            size = self.config.vocab_size
            output.loss = self.loss_function(output.logits, labels, size, num_items_in_batch=num_items_in_batch)
        return output

    def prepare_inputs_for_generation(self, input_ids: Tensor, **kwargs: Any) -> dict[str, Any]:
        """The whole text at each step; only the last loop is read out."""
        check_returned(kwargs)
        loops = {"num_loops": kwargs["num_loops"]} if "num_loops" in kwargs else {}
        return {"input_ids": input_ids, "attention_mask": kwargs.get("attention_mask"), "read_last": 1, **loops}


def check_returned(options: dict[str, Any]) -> None:
    """Refuse what transformers' own models return for each layer."""
    for key in NOT_RETURNED:
        if options.get(key):
            refuse(key, "must be false", "true", "call the model with output_states=True for those of loops", WHERE)


AutoModelForCausalLM.register(LoopedConfig, LoopedForCausalLM)
