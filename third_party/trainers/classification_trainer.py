"""transformers' Trainer for models with a classification or regression head and adapters.

    classes    summed cross-entropy of logits (batch, classes) and class indices (batch,)
    numbers    summed squared error of logits (batch, 1) and numbers (batch,)

An item of the loss is a row, so that n micro-batches give the gradient of one batch. The column ``task`` of a batch
names the task whose adapters act on it.
"""

from torch import Tensor, nn
from transformers import Trainer
from transformers.modeling_outputs import SequenceClassifierOutput

from third_party.trainers.adapter_trainer import AdapterTrainerMixin, unpadded_tokens
from third_party.trainers.exact_loss import summed_cross_entropy
from third_party.trainers.task_adapters import TaskAdaptersMixin


class ClassificationTrainer(TaskAdaptersMixin, AdapterTrainerMixin, Trainer):
    """Trains what ``adapters.attach`` left trainable; arguments and errors are those of its bases.

    Rows have ``labels``: class indices, -100 for a row without one; or numbers, if the model has a single output.
    """

    unit = "tokens"

    def count_inputs(self, inputs: dict[str, Tensor]) -> int:
        return unpadded_tokens(inputs)

    def summed_loss(self, model: nn.Module, inputs: dict[str, Tensor]) -> tuple[Tensor, SequenceClassifierOutput]:
        """The loss summed over the rows of a micro-batch, and the logits alone: hidden states are not gathered."""
        inputs = dict(inputs)
        labels = inputs.pop("labels")  # (batch,)
        logits = model(**inputs).logits  # (batch, outputs)
        if logits.shape[-1] == 1:
            loss = (logits.squeeze(-1).float() - labels.float()).square().sum()  # (batch, 1) -> (batch,) -> ()
        else:
            loss = summed_cross_entropy(logits, labels, self.args.label_smoothing_factor)
        return loss, SequenceClassifierOutput(logits=logits)
