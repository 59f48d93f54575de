"""transformers' trainers for models with adapters.

Built of mixins, each in a module:

    exact_loss            n micro-batches give the gradient of one batch
    merged_evaluation     evaluation at the dense model's cost
    acting_check          the first batches call every adapter
    adapter_checkpoints   adapter tensors only; the newest complete checkpoint
    sharded_training      the model sharded over processes by FSDP2
    adapter_trainer       these five, with measured costs and a progress bar
    task_adapters         batches of several tasks, each with its own adapters
    seq2seq_trainer       all of it over transformers' Seq2SeqTrainer, for encoder-decoder models
    classification_trainer, causal_trainer    all of it over transformers' Trainer, for models with a head and decoders
"""

from third_party.trainers.adapter_checkpoints import last_complete_checkpoint
from third_party.trainers.adapter_trainer import AdapterTrainerMixin
from third_party.trainers.causal_trainer import CausalTrainer, left_padded, packed
from third_party.trainers.classification_trainer import ClassificationTrainer
from third_party.trainers.exact_loss import IGNORED_LABEL
from third_party.trainers.measurement import MeasurementCallback, ProgressLineCallback
from third_party.trainers.rank_schedule import RankScheduleCallback
from third_party.trainers.seq2seq_trainer import Seq2SeqTrainer
from third_party.trainers.task_adapters import TASK_COLUMN

__all__ = [
    "IGNORED_LABEL",
    "TASK_COLUMN",
    "AdapterTrainerMixin",
    "CausalTrainer",
    "ClassificationTrainer",
    "MeasurementCallback",
    "ProgressLineCallback",
    "RankScheduleCallback",
    "Seq2SeqTrainer",
    "last_complete_checkpoint",
    "left_padded",
    "packed",
]
