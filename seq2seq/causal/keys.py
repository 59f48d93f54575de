"""The JSON keys of the workload ``causal``, and what follows from them: rows of tasks, or texts of a corpus."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from seq2seq import SPLITS
from seq2seq.causal.corpus import Corpus
from seq2seq.causal.distillation import Distillation
from seq2seq.causal.named_texts import is_name
from seq2seq.causal.windows import Bos
from seq2seq.tasks.data_names import data_set_name
from seq2seq.tasks.keys import TaskKeys
from seq2seq.tasks.task_spec import TaskSpec

TEXT_METRICS = ("perplexity", "bits_per_byte", "standard_error", "last_word_accuracy", "last_word_perplexity")
"""Metrics of a text besides its log-likelihood per token, which chooses checkpoints."""

SHOWN_METRICS = tuple(name for name in TEXT_METRICS if name != "standard_error")
"""Those that tables show as results."""


@dataclass(frozen=True, kw_only=True)
class CausalKeys(TaskKeys):
    """The fields are the keys; your own files of rows have the columns ``source`` and ``target``.

    Args:
        corpus: texts to model instead of tasks, see ``seq2seq.causal.corpus``.
        template: how a row becomes a prompt, such as "{source}\\nAnswer: {target}"; None for the tokenizer's chat
            template, or this one.
        scoring: of tasks with labels, the label with the largest likelihood, or the text that is generated.
        packing: whether the rows of a training batch become one sequence without padding.
        max_source_length, max_target_length: tokens of a prompt and of an answer; a longer source is cut.
        window: tokens that the model reads at once in a corpus.
        stride: tokens between the starts of two windows in evaluation; None for windows that share one token.
        bos: where the begin-of-sequence token is, see ``seq2seq.causal.windows``.
        last_words: texts, such as ``lambada``, whose last words are predicted with the test text, see
            ``seq2seq.causal.last_words``.
        distill: a teacher that the model follows, see ``seq2seq.causal.distillation``.
        continuations: samples of the test text (or the validation text) that are continued for the run's page.
    """

    name = "causal"
    paths = (*TaskKeys.paths, "last_words")
    reserved_arguments: ClassVar[Mapping[str, str]] = {"fp16": "adapters train in float32: use bf16"}
    file_keys = TaskKeys.file_keys
    flags = ("average_metrics", "constant_predictions", "invalid", *TEXT_METRICS)
    smaller_is_better = TEXT_METRICS[:3]
    notes: ClassVar[Mapping[str, str]] = {"invalid": "no answer is one of the labels", **TaskKeys.notes}
    other_names: ClassVar[Mapping[str, str]] = {
        **TaskKeys.other_names,
        "text_file": "corpus.train, corpus.validation and corpus.test",
        "max_length": "window, or max_source_length and max_target_length",
        "block_size": "window",
        "prompt": "template",
    }
    ranges: ClassVar[Mapping[str, tuple[float, float]]] = {
        **TaskKeys.ranges,
        "max_source_length": (2, 1e6),
        "max_target_length": (2, 1e6),
        "window": (3, 1e6),
        "stride": (1, 1e6),
        "continuations": (0, 100),
    }

    model_name_or_path: str = "assets/small_decoder"
    corpus: Corpus | None = None
    template: str | None = None
    scoring: Literal["likelihood", "generation"] = "likelihood"
    packing: bool = False
    max_source_length: int = 256
    max_target_length: int = 16
    window: int = 256
    stride: int | None = None
    bos: Bos = "text"
    last_words: str | None = None
    distill: Distillation | None = None
    continuations: int = 3

    @property
    def specs(self) -> list[TaskSpec]:
        return [] if self.corpus is not None else super().specs

    @property
    def splits(self) -> Sequence[str]:
        return super().splits if self.corpus is None else self.corpus.splits

    @property
    def split_keys(self) -> Mapping[str, str]:
        return super().split_keys if self.corpus is None else {split: f"corpus.{split}" for split in SPLITS}

    @classmethod
    def own_file_keys(cls, config: Mapping[str, Any]) -> dict[str | None, Mapping[str, str]]:
        if config.get("corpus") is None:
            return super().own_file_keys(config)
        return {None: {split: f"corpus.{split}" for split in SPLITS}}

    @property
    def task_label(self) -> str:
        """The tasks, or the name of the text that results are measured on."""
        if self.corpus is None:
            return super().task_label
        source = self.corpus.sources(self.corpus.splits[-1])[0]
        return self.data_name or (source if is_name(source) else data_set_name(source))

    @property
    def metric_names(self) -> Collection[str]:
        own = {"log_likelihood", "average_metrics", *TEXT_METRICS[:3]}
        return super().metric_names if self.corpus is None else own
