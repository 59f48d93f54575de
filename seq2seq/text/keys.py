"""The JSON keys of the workload ``text``."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from transformers import Seq2SeqTrainingArguments

from seq2seq.tasks.keys import TaskKeys

RESERVED_ARGUMENTS = {
    "fp16": "T5 overflows in float16: use bf16",
    "fp16_full_eval": "T5 overflows in float16: use bf16_full_eval",
    "generation_config": "answers are decoded greedily, or with generation_num_beams beams",
    "generation_max_length": "answers have at most max_target_length tokens",
    "predict_with_generate": "metrics are always computed from generated texts",
}


@dataclass(frozen=True, kw_only=True)
class TextKeys(TaskKeys):
    """The fields are the keys; your own files have the columns ``source`` and ``target``.

    Args:
        max_source_length, max_target_length: tokens; longer texts are truncated.
    """

    name = "text"
    arguments_class = Seq2SeqTrainingArguments
    reserved_arguments = RESERVED_ARGUMENTS
    flags = ("average_metrics", "constant_predictions", "invalid", "unwritable")
    notes: ClassVar[Mapping[str, str]] = {"invalid": "no answer is one of the labels", **TaskKeys.notes}
    ranges: ClassVar[Mapping[str, tuple[float, float]]] = {
        **TaskKeys.ranges,
        "generation_num_beams": (1, 1e3),
        "max_source_length": (2, 1e6),
        "max_target_length": (2, 1e6),
    }

    max_source_length: int = 128
    max_target_length: int = 16
