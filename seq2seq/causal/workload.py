"""The workload ``causal``: text and its continuation, by a decoder-only model (GPT-2, Llama, ...).

keys, rules    the JSON keys besides those of tasks    corpus, tokens    texts, and the token ids made of them
decoder        the frozen model and its tokenizer      windows           how texts are read, and what is measured
encoding       rows as prompts and answers             trainer           training; likelihoods and generated answers
data           what a run trains and is scored on      baselines         each token by its frequency
pretrain       how assets/small_decoder was made       named_texts       texts of data sets, of the hub or a folder
file_texts     texts of files                          perplexity        a text scored from the terminal
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from datasets import Dataset
from torch import Tensor, nn
from transformers import TrainerCallback, TrainingArguments
from transformers.trainer_utils import IntervalStrategy

from adapters import AdapterConfig
from seq2seq.causal.baselines import unigram
from seq2seq.causal.data import (
    CausalTasksData,
    CorpusData,
    load_corpus,
    load_rows_to_predict,
    load_tasks,
    load_text,
    windows_of,
)
from seq2seq.causal.decoder import load_decoder, why_not_dense
from seq2seq.causal.keys import SHOWN_METRICS, CausalKeys
from seq2seq.causal.rules import check_causal
from seq2seq.causal.trainer import CorpusTrainer, TasksTrainer, make_trainer
from seq2seq.run_folder import read_json_lines
from seq2seq.tasks.baselines import task_baselines
from seq2seq.tasks.positions import check_positions
from seq2seq.workload import Baseline, Evaluation, Prepared

SAMPLE_FILES = ("predictions_test_continuations.jsonl", "predictions_validation_continuations.jsonl")
"""Where the samples of the run's page are."""


@dataclass(frozen=True, kw_only=True)
class CausalWorkload(CausalKeys):
    """Text and its continuation, by a decoder-only model.

    ``CausalKeys`` has the keys.
    """

    def check(self, configs: Sequence[AdapterConfig], training: Mapping[str, Any]) -> None:
        check_causal(self, configs, training)

    def training_arguments(self) -> dict[str, Any]:
        return {"ddp_find_unused_parameters": True} if self.adapters_per_task else {}  # a step trains one task's

    def load_data(self, arguments: TrainingArguments) -> CausalTasksData | CorpusData:
        return load_tasks(self, arguments) if self.corpus is None else load_corpus(self)

    def load_file(self, path: Path, task: str | None, arguments: TrainingArguments) -> CausalTasksData | CorpusData:
        return load_rows_to_predict(self, path, task) if self.corpus is None else load_text(self, path, "file")

    def load_model(self, random: bool = False) -> nn.Module:
        return load_decoder(self, random)

    def make_trainer(
        self, prepared: Prepared, callbacks: Sequence[TrainerCallback] = ()
    ) -> TasksTrainer | CorpusTrainer:
        return make_trainer(self, prepared, callbacks)

    def evaluate(self, prepared: Prepared, trainer: TasksTrainer | CorpusTrainer, split: str) -> Evaluation:
        return trainer.score(split)

    def samples(self, prepared: Prepared) -> Mapping[str, Dataset]:
        return prepared.data.samples()

    def baselines(self) -> Mapping[str, Baseline]:
        free_text = (spec.name for spec in self.specs if spec.labels is None and not spec.is_number)
        found = dict(task_baselines(next(free_text, None)))
        reason = "there is no corpus"
        if self.corpus is not None:
            found = {name: each._replace(unsupported="a corpus has no answers") for name, each in found.items()}
            reason = None
        return {
            **found,
            "unigram": Baseline("each token by its frequency", unigram, reason),
            "dense": Baseline("the base model with dense weights", self.score_dense, why_not_dense(self)),
        }

    def score_dense(self, prepared: Prepared, split: str) -> dict[str, float]:
        """The metrics of the base model with the weights that it was loaded with."""
        dense = replace(prepared, model=self.load_model())
        return self.evaluate(dense, self.make_trainer(dense), split).metrics

    def check_text(self, prepared: Prepared, path: Path) -> None:
        load_text(self, path, "forgetting_file")
        check_positions(prepared.model, self.window, "'window'")

    def score_text(self, prepared: Prepared, path: Path) -> dict[str, float]:
        arguments = copy.copy(prepared.arguments)  # making another object would set up the processes again
        arguments.eval_strategy = IntervalStrategy.NO
        text = replace(prepared, data=load_text(self, path, "forgetting_file"), arguments=arguments)
        return make_trainer(self, text).score_text("test")

    def token_windows(self, path: Path | None, limit: int) -> list[Tensor]:
        return windows_of(self, path, limit)

    def headline(self, metrics: Mapping[str, float | None]) -> dict[str, str]:
        """Of a text, perplexity and bits per byte before what chooses the checkpoint."""
        shown = super().headline(metrics)
        if "perplexity" not in metrics:
            return shown
        first = {name: metrics[name] for name in SHOWN_METRICS if name in metrics}
        return {name: "not finite" if value is None else f"{value:.4f}" for name, value in first.items()} | shown

    def table_rows(self, result: Mapping[str, Any]) -> list[list[str]]:
        """The share of answers that are not labels, if there are any, and standard errors of texts."""
        rows = []
        for split, metrics in result["metrics"].items():
            for name, value in metrics.items():
                task, _, flag = name.rpartition("/")
                if flag == "invalid" and value:
                    rows.append([" ".join(filter(None, (split, task, "answers that are not labels"))), f"{value:.2%}"])
                if flag == "standard_error" and value is not None:
                    rows.append([f"{split} standard error of the log-likelihood", f"{value:.4f}"])
        return rows

    def page_section(self, directory: Path, result: Mapping[str, Any]) -> str:
        """Samples of a corpus: how a text goes on, and how the model continues it."""
        path = next((p for p in map(directory.joinpath, SAMPLE_FILES) if p.is_file()), None)
        if path is None or self.corpus is None:
            return ""
        blocks = [f"```\n{row['prompt']} ⟶{row['prediction']}\n```\n" for row in read_json_lines(path)]
        return "\nContinuations of texts that the model was not trained on, decoded greedily:\n\n" + "\n".join(blocks)
