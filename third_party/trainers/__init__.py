"""Trainers of transformers that know adapters."""

from third_party.trainers.measurement import MeasurementCallback, ProgressLineCallback
from third_party.trainers.rank_schedule import RankScheduleCallback
from third_party.trainers.seq2seq_trainer import Seq2SeqTrainer, last_complete_checkpoint

__all__ = [
    "MeasurementCallback",
    "ProgressLineCallback",
    "RankScheduleCallback",
    "Seq2SeqTrainer",
    "last_complete_checkpoint",
]
