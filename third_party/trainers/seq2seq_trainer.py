"""transformers' Seq2SeqTrainer for encoder-decoder models with adapters.

loss          summed cross-entropy over the target tokens of the whole accumulated batch; T5's own forward ignores
              num_items_in_batch, so its mean is not exact
tasks         the column ``task`` of a batch names the task whose adapters act on it
"""

from typing import Any

from torch import Tensor, nn
from transformers import Seq2SeqTrainer as TransformersSeq2SeqTrainer

from third_party.trainers.adapter_trainer import AdapterTrainerMixin, unpadded_tokens
from third_party.trainers.exact_loss import summed_cross_entropy
from third_party.trainers.task_adapters import TaskAdaptersMixin


class Seq2SeqTrainer(TaskAdaptersMixin, AdapterTrainerMixin, TransformersSeq2SeqTrainer):
    """Trains what ``adapters.attach`` left trainable; arguments and errors are those of its bases."""

    unit = "source tokens"

    def count_inputs(self, inputs: dict[str, Tensor]) -> int:
        return unpadded_tokens(inputs)

    def summed_loss(self, model: nn.Module, inputs: dict[str, Tensor]) -> tuple[Tensor, Any]:
        """Cross-entropy summed over the target tokens of a micro-batch (batch, target)."""
        inputs = dict(inputs)
        labels = inputs.pop("labels")
        if "decoder_input_ids" not in inputs:
            inputs["decoder_input_ids"] = self.model.prepare_decoder_input_ids_from_labels(labels)
        outputs = model(**inputs)
        return summed_cross_entropy(outputs.logits, labels, self.args.label_smoothing_factor), outputs
