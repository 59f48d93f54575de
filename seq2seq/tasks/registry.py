"""The registry `TASKS`: the template, labels, metrics and split policy of each built-in task; a new one is one more
entry. Tasks can also be described without code, see `seq2seq.tasks.described`.

Templates and label strings follow the text-to-text format of Raffel et al. 2020 (appendix D); metrics and splits follow
Karimi Mahabadi et al. 2021 (Compacter).
"""

from collections.abc import Mapping
from typing import Any

from adapters import ConfigurationError
from adapters.validation import nearest_name
from seq2seq.tasks.described import installed_names, installed_task
from seq2seq.tasks.raw_rows import (
    answer_texts,
    answers_per_question,
    entailed_is_true,
    mark_spans,
    optional_pair,
    queries_of_passage,
)
from seq2seq.tasks.task_spec import SIMILARITY_LABELS, TaskSpec


def _glue(name: str, **fields: Any) -> TaskSpec:
    return TaskSpec(name=name, hub=("nyu-mll/glue", name), **fields)


def _super_glue(name: str, configuration: str | None = None, **fields: Any) -> TaskSpec:
    return TaskSpec(name=name, hub=("aps/super_glue", configuration or name), **fields)


def _world(skill: str, **fields: Any) -> TaskSpec:
    return TaskSpec(name=f"world_{skill}", split="given", folder=skill, data_dir="assets/small_world/tasks", **fields)


_ENTAILMENT = ("entailment", "not_entailment")
_BOOLEAN = ("False", "True")

_ALL = (
    # GLUE (Wang et al. 2018)
    _glue(
        "cola",
        source="cola sentence: {sentence}",
        texts=("{sentence}",),
        labels=("unacceptable", "acceptable"),
        metrics=("matthews",),
        folder="CoLA",
        header=("origin", "label", "mark", "sentence"),
    ),
    _glue(
        "sst2",
        source="sst2 sentence: {sentence}",
        texts=("{sentence}",),
        labels=("negative", "positive"),
        metrics=("accuracy",),
        split="large",
        folder="SST-2",
    ),
    _glue(
        "mrpc",
        source="mrpc sentence1: {sentence1} sentence2: {sentence2}",
        texts=("{sentence1}", "{sentence2}"),
        labels=("not_equivalent", "equivalent"),
        metrics=("f1", "accuracy"),
        folder="MRPC",
        rename={"#1 String": "sentence1", "#2 String": "sentence2", "Quality": "label"},
    ),
    _glue(
        "qqp",
        source="qqp question1: {question1} question2: {question2}",
        texts=("{question1}", "{question2}"),
        labels=("not_duplicate", "duplicate"),
        metrics=("f1", "accuracy"),
        split="large",
        folder="QQP",
        rename={"is_duplicate": "label"},
    ),
    _glue(
        "stsb",
        source="stsb sentence1: {sentence1} sentence2: {sentence2}",
        texts=("{sentence1}", "{sentence2}"),
        labels=SIMILARITY_LABELS,
        metrics=("pearson", "spearman"),
        folder="STS-B",
        rename={"score": "label"},
    ),
    _glue(
        "mnli",
        source="mnli hypothesis: {hypothesis} premise: {premise}",
        texts=("{premise}", "{hypothesis}"),
        labels=("entailment", "neutral", "contradiction"),
        metrics=("accuracy",),
        split="mnli",
        folder="MNLI",
        rename={"sentence1": "premise", "sentence2": "hypothesis", "gold_label": "label"},
    ),
    _glue(
        "qnli",
        source="qnli question: {question} sentence: {sentence}",
        texts=("{question}", "{sentence}"),
        labels=_ENTAILMENT,
        metrics=("accuracy",),
        split="large",
        folder="QNLI",
    ),
    _glue(
        "rte",
        source="rte sentence1: {sentence1} sentence2: {sentence2}",
        texts=("{sentence1}", "{sentence2}"),
        labels=_ENTAILMENT,
        metrics=("accuracy",),
        folder="RTE",
    ),
    _glue(
        "wnli",
        source="wnli sentence1: {sentence1} sentence2: {sentence2}",
        texts=("{sentence1}", "{sentence2}"),
        labels=("not_entailment", "entailment"),
        metrics=("accuracy",),
        folder="WNLI",
    ),
    # SuperGLUE (Wang et al. 2019)
    _super_glue(
        "boolq",
        source="boolq question: {question} passage: {passage}",
        texts=("{question}", "{passage}"),
        labels=_BOOLEAN,
        metrics=("accuracy",),
        folder="BoolQ",
        rename={"answer": "label"},
    ),
    _super_glue(
        "cb",
        source="cb hypothesis: {hypothesis} premise: {premise}",
        texts=("{premise}", "{hypothesis}"),
        labels=("entailment", "contradiction", "neutral"),
        metrics=("macro_f1", "accuracy"),
        folder="CB",
    ),
    _super_glue(
        "copa",
        source="copa choice1: {choice1} choice2: {choice2} premise: {premise} question: {question}",
        labels=("choice1", "choice2"),
        metrics=("accuracy",),
        folder="COPA",
    ),
    _super_glue(
        "multirc",
        source="multirc question: {question} answer: {answer} paragraph: {paragraph}",
        texts=("{paragraph}", "{question} {answer}"),
        labels=_BOOLEAN,
        metrics=("f1a", "question_exact_match"),
        folder="MultiRC",
        unpack=answers_per_question,
        group="{idx[paragraph]}-{idx[question]}",
    ),
    _super_glue(
        "wic",
        source="wic sentence1: {sentence1} sentence2: {sentence2} word: {word}",
        labels=_BOOLEAN,
        metrics=("accuracy",),
        folder="WiC",
    ),
    _super_glue(
        "wsc",
        configuration="wsc.fixed",
        source="wsc text: {text}",
        texts=("{text}",),
        labels=_BOOLEAN,
        metrics=("accuracy",),
        folder="WSC",
        unpack=mark_spans,
    ),
    _super_glue(
        "record",
        source="record query: {query} entities: {entities} passage: {passage}",
        target="{answers}",
        metrics=("squad_f1", "squad_exact_match"),  # ReCoRD's own are the same functions (Zhang et al. 2018)
        split="large",
        folder="ReCoRD",
        unpack=queries_of_passage,
    ),
    # SQuAD 1.1 (Rajpurkar et al. 2016)
    TaskSpec(
        name="squad",
        source="squad question: {question} context: {context}",
        target="{answers}",
        metrics=("squad_f1", "squad_exact_match"),
        split="large",
        hub=("rajpurkar/squad", "plain_text"),
        folder="SQuAD",
        unpack=answer_texts,
    ),
    # The small world: the project's own data in GLUE's formats, with labels from the embedded backbone's vocabulary
    _world(
        "acceptability",
        source="world_acceptability sentence: {sentence}",
        texts=("{sentence}",),
        labels=("wrong", "right"),
        metrics=("matthews",),
    ),
    _world(
        "sentiment",
        source="world_sentiment sentence: {sentence}",
        texts=("{sentence}",),
        labels=("bad", "good"),
        metrics=("accuracy",),
    ),
    _world(
        "paraphrase",
        source="world_paraphrase sentence1: {sentence1} sentence2: {sentence2}",
        texts=("{sentence1}", "{sentence2}"),
        labels=("different", "same"),
        metrics=("f1",),
    ),
    _world(
        "entailment",
        source="world_entailment sentence1: {sentence1} sentence2: {sentence2}",
        texts=("{sentence1}", "{sentence2}"),
        labels=("true", "false"),
        metrics=("accuracy",),
        unpack=entailed_is_true,
    ),
    _world(
        "similarity",
        source="world_similarity sentence1: {sentence1} sentence2: {sentence2}",
        texts=("{sentence1}", "{sentence2}"),
        target="{score}",
        labels=SIMILARITY_LABELS,
        metrics=("spearman",),
    ),
)

TASKS: dict[str, TaskSpec] = {spec.name: spec for spec in _ALL}

CUSTOM_FILES = TaskSpec(name="own_files", source="{source}", target="{target}", metrics=("exact_match",), split="given")
"""The task of user-defined files with the columns `source` and `target`: any text to any text."""


CUSTOM_TEXTS = TaskSpec(
    name="own_files",
    source="",
    texts=("{text}", "{text_pair}"),
    unpack=optional_pair,
    metrics=("accuracy",),
    split="given",
)
"""The task of user-defined files with the columns `text`, `text_pair` if there is a second text, and `label`."""


def get_task(name: str, described: Mapping[str, TaskSpec] | None = None, key: str = "task_name") -> TaskSpec:
    """Return the task of that name: described in the configuration, built in, or offered by an installed package.

    Args:
        name: the task.
        described: the tasks of the configuration's key ``tasks``.
        key: what the message says if there is none.

    Raises:
        ConfigurationError: no such task; the message suggests the nearest name and lists all of them.
    """
    described = described or {}
    if name in described:
        return described[name]
    if name in TASKS:
        return TASKS[name]
    installed = installed_names()
    if name in installed:
        return installed_task(name)
    known = {*described, *TASKS, *installed}
    raise ConfigurationError(
        f"Key {key!r} names a task, or is left out for your own files; got {name!r}: {nearest_name(name, known)}"
    )
