"""The trainers of causal runs: of tasks, scored by their answers, and of a corpus, scored by its likelihood.

A task with labels is answered by the label with the largest likelihood after the prompt, end included; the first of
equals. Others are answered by greedy generation.
"""

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np
from datasets import Dataset, concatenate_datasets
from transformers import GenerationConfig, PreTrainedTokenizerBase, TrainerCallback

from seq2seq.causal.data import CausalTaskData, CausalTasksData, CorpusData
from seq2seq.causal.decoder import check_packing
from seq2seq.causal.encoding import prompt_of
from seq2seq.causal.keys import CausalKeys
from seq2seq.causal.last_words import last_word_metrics
from seq2seq.causal.windows import ScoredWindows, TrainedWindows, WindowSampler, text_metrics
from seq2seq.tasks.positions import check_positions
from seq2seq.tasks.scoring import TaskScoringMixin
from seq2seq.workload import Evaluation, Prepared
from third_party.trainers import IGNORED_LABEL, CausalTrainer, left_padded

PROMPT_SHARE = 4
"""A sample continues the first 1 / PROMPT_SHARE of a window."""


class TasksTrainer(TaskScoringMixin, CausalTrainer):
    """Scores answers of tasks."""

    flags = CausalKeys.flags
    data: CausalTasksData

    def answers_and_loss(self, task: CausalTaskData, split: str) -> tuple[list[str], float | None]:
        rows = task.encoded[split]
        if task.labels is None:
            generated = self.predict(without_answers(rows)).predictions
            answers = self.data.encoder.decode(generated)
            return answers, self.loss_of(self.predict(rows).predictions) if task.spec.metrics else None
        scores = self.label_scores(rows, task.labels)  # (rows, labels, 3)
        answers = [task.labels[index] for index in scores[..., 0].argmax(1)]
        if not task.spec.metrics:
            return answers, None
        targets = [task.labels.index(target) for target in task.splits[split]["target"][:]]
        return answers, self.loss_of(scores[np.arange(len(rows)), targets])

    def label_scores(self, rows: Dataset, labels: Sequence[str]) -> np.ndarray:
        """Each label after each row's prompt, (rows, labels, 3) as ``PredictingTrainer.likelihoods`` has them."""
        answers = [self.data.encoder.answer(label) for label in labels]
        candidates = Dataset.from_list([*with_answers(rows, answers)])
        return self.predict(candidates).predictions.reshape(len(rows), len(labels), -1)

    @staticmethod
    def loss_of(scores: np.ndarray) -> float:
        """The mean negative log-likelihood of a target token; scores are (rows, 3)."""
        return float(-scores[:, 0].sum() / scores[:, 1].sum())


def without_answers(rows: Dataset) -> Dataset:
    """The prompts of rows."""
    prompts = rows.remove_columns(["input_ids", "labels"]).to_list() or [{}] * len(rows)
    return Dataset.from_list(
        [{**others, "input_ids": prompt_of(row)} for others, row in zip(prompts, rows, strict=True)]
    )


def with_answers(rows: Dataset, answers: Sequence[list[int]]) -> Iterable[dict[str, Any]]:
    """Each row's prompt with each of the answers."""
    for row in rows:
        prompt = prompt_of(row)
        for answer in answers:
            labels = [IGNORED_LABEL] * len(prompt) + answer
            yield {**row, "input_ids": prompt + answer, "labels": labels}


class CorpusTrainer(CausalTrainer):
    """Scores texts."""

    flags = CausalKeys.flags

    def __init__(self, data: CorpusData, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.data = data

    def window_sums(self, split: str) -> np.ndarray:
        """Log-likelihood, number of scored tokens and of those that are most likely, for each window, (windows, 3)."""
        return self.predict(ScoredWindows(self.data.streams[split], self.data.reading)).predictions

    def score_text(self, split: str) -> dict[str, float]:
        """The metrics of a split without its samples."""
        return text_metrics(self.window_sums(split), self.data.streams[split])

    def metrics_of(self, sums: np.ndarray, split: str) -> dict[str, float]:
        """The metrics of a split."""
        metrics = text_metrics(sums, self.data.streams[split])
        return {**metrics, "average_metrics": metrics["log_likelihood"]}

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Metrics on the validation split, as transformers expects them: logged, and named eval_..."""
        found = self.metrics_of(self.window_sums("validation"), "validation")
        metrics = {f"eval_{name}": value for name, value in {**found, "loss": -found["log_likelihood"]}.items()}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def score(self, split: str) -> Evaluation:
        """Metrics of a split's text; for each window its beginning, its scored tokens and their log-likelihood."""
        sums, windows = self.window_sums(split), ScoredWindows(self.data.streams[split], self.data.reading)
        rows = []
        for index, (log_p, tokens, _) in enumerate(sums.tolist()):
            text = self.data.tokenizer.decode(windows[index]["input_ids"][:SHOWN], skip_special_tokens=True)
            rows.append({"text": text, "tokens": int(tokens), "log_likelihood": log_p})
        metrics = self.metrics_of(sums, split)
        if split == "test" and self.data.last_words:
            words = self.predict(Dataset.from_list(list(self.data.last_words))).predictions
            metrics |= last_word_metrics(words)
        return Evaluation(metrics, {"windows": rows, **self.continued(windows)})

    def continued(self, windows: ScoredWindows) -> dict[str, list[dict[str, str]]]:
        """Continuations of the beginnings of a few windows, evenly spaced; none if none are asked for."""
        count = min(self.data.continuations, len(windows))
        if count == 0:
            return {}
        chosen = [windows[index * len(windows) // count]["input_ids"] for index in range(count)]
        ends = [max(1, len(ids) // PROMPT_SHARE) for ids in chosen]
        prompts = [{"input_ids": ids[:end]} for ids, end in zip(chosen, ends, strict=True)]
        generated = self.predict(Dataset.from_list(prompts)).predictions
        decode = partial(self.data.tokenizer.batch_decode, skip_special_tokens=True)
        new = decode(np.where(generated < 0, self.data.tokenizer.pad_token_id, generated))
        real = [ids[end : end + generated.shape[1]] for ids, end in zip(chosen, ends, strict=True)]
        records = zip(decode([row["input_ids"] for row in prompts]), decode(real), new, strict=True)
        return {"continuations": [dict(zip(("prompt", "text", "prediction"), row, strict=True)) for row in records]}


SHOWN = 24
"""Tokens of a window that its record has."""

NEW_TOKENS = 48
"""Tokens of a sample's continuation."""


def generation(tokenizer: PreTrainedTokenizerBase, tokens: int) -> GenerationConfig:
    """Greedy decoding up to the end-of-sequence token."""
    ends = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    return GenerationConfig(max_new_tokens=tokens, do_sample=False, num_beams=1, **ends)


def make_trainer(
    keys: CausalKeys, prepared: Prepared, callbacks: Sequence[TrainerCallback] = ()
) -> TasksTrainer | CorpusTrainer:
    """The trainer of a run.

    Raises:
        ConfigurationError: rows are packed, and the architecture does not keep them apart; or the model has fewer
            positions than a row or window may have tokens.
    """
    data = prepared.data
    shared = {
        "model": prepared.model,
        "args": prepared.arguments,
        "data_collator": partial(left_padded, pad_token_id=data.tokenizer.pad_token_id),
        "processing_class": data.tokenizer,
        "callbacks": list(callbacks),
    }
    if keys.distill is not None and data.teacher is not None:
        shared |= {
            "teacher": data.teacher.to(prepared.arguments.device),
            "teacher_weight": keys.distill.weight,
            "temperature": keys.distill.temperature,
        }
    if isinstance(data, CorpusData):
        check_positions(prepared.model, data.reading.window, "'window'")
        train = TrainedWindows(data.streams["train"], data.reading) if "train" in data.streams else None
        return CorpusTrainer(
            data,
            train_dataset=train,
            eval_dataset=data.streams.get("validation") and ScoredWindows(data.streams["validation"], data.reading),
            train_sampler=None if train is None else WindowSampler(train, prepared.arguments.seed),
            generation=generation(data.tokenizer, NEW_TOKENS),
            **shared,
        )
    longest = keys.max_source_length + keys.max_target_length
    check_positions(prepared.model, longest, "'max_source_length' plus 'max_target_length'")
    if keys.packing:
        check_packing(prepared.model)
    encoded = {name: task.encoded for name, task in data.tasks.items()}
    train = [splits["train"] for splits in encoded.values() if "train" in splits]
    validation = {name: splits["validation"] for name, splits in encoded.items() if "validation" in splits}
    return TasksTrainer(
        data,
        train_dataset=concatenate_datasets(train) if train else None,
        eval_dataset=validation or None,
        task_names=keys.task_names if keys.adapters_per_task else (),
        train_sampler=data.train_sampler,
        packing=keys.packing,
        generation=generation(data.tokenizer, keys.max_target_length),
        **shared,
    )
