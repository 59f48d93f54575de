"""The tasks: how a row of a data set becomes a text that goes in and a text that must come out.

One `TaskSpec` per task, all in the registry `TASKS`; a new task is one more entry. A row passes three stations:

    raw row     as a file or the hub gives it           {"is_duplicate": "1", "question1": "...", ...}
    flat row    the hub's column names, one answer each  {"label": "1", "question1": "...", ...}
    example     what the model sees                      {"source": "qqp question1: ...", "target": "duplicate"}

Templates and label strings follow the text-to-text form of Raffel et al. 2020 (appendix D); metrics and splits follow
Karimi Mahabadi et al. 2021 (Compacter).
"""

import math
import operator
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from string import Formatter
from typing import Any

from adapters import ConfigurationError
from adapters.validation import nearest_name
from seq2seq.files import Row

SIMILARITY_LABELS = tuple(f"{step / 5:.1f}" for step in range(26))
"""The 26 answers of a similarity task: "0.0", "0.2", ..., "5.0"."""


def similarity_label(score: float | str) -> str:
    """The label of a score in [0, 5]: round(5 * score) / 5 with one decimal (Raffel et al. 2020, section 2.4)."""
    try:
        value = float(score)
    except (TypeError, ValueError):
        value = math.nan
    if not 0.0 <= value <= 5.0:
        raise ValueError(f"A similarity score is a number in [0, 5]; {score!r} was given. Rescale the scores.")
    return f"{round(5 * value) / 5:.1f}"


def answers_per_question(row: Row) -> Iterable[Row]:
    """MultiRC: SuperGLUE's nested passage as one row per answer; the hub's rows are flat already."""
    if "passage" not in row:
        return [row]
    passage = row["passage"]
    return [
        {
            "paragraph": passage["text"],
            "question": question["question"],
            "answer": answer["text"],
            "idx": {"paragraph": row["idx"], "question": question["idx"], "answer": answer["idx"]},
            "label": answer.get("label"),
        }
        for question in passage["questions"]
        for answer in question["answers"]
    ]


def mark_spans(row: Row) -> Iterable[Row]:
    """WSC: puts the noun between # and the pronoun between *; positions count words, as in SuperGLUE's files."""
    flat = {**row, **row.get("target", {})}
    words = flat["text"].split(" ")
    for span, mark in (("span1", "#"), ("span2", "*")):
        first = flat[f"{span}_index"]
        last = first + len(flat[f"{span}_text"].split()) - 1
        words[first] = mark + words[first]
        words[last] = words[last] + mark
    return [{**flat, "text": " ".join(words)}]


def entailed_is_true(row: Row) -> Iterable[Row]:
    """The small world's entailment: a statement that follows is true."""
    return [{**row, "label": {"entailment": "true", "not_entailment": "false"}.get(row["label"], row["label"])}]


def queries_of_passage(row: Row) -> Iterable[Row]:
    """ReCoRD: one row per query, with all its accepted answers; SuperGLUE's nested passage, or a flat row of the hub.

    Entities stand in the order in which the passage names them, each once. The passage's @highlight lines become
    sentences (Raffel et al. 2020). There a query is one training row per answer; here it is one row, whose first answer
    is trained on, so that a row is a query in training, evaluation and limits alike.
    """
    if "qas" in row:
        text, spans = row["passage"]["text"], row["passage"]["entities"]
        entities = [text[span["start"] : span["end"] + 1] for span in sorted(spans, key=lambda span: span["start"])]
        queries = [(qa["query"], [answer["text"] for answer in qa.get("answers", [])]) for qa in row["qas"]]
    else:
        text, entities = row["passage"], row["entities"]
        queries = [(row["query"], list(row["answers"]))]
    passage = re.sub(r"\n@highlight\n", ". ", re.sub(r"([.?!\"'])\n@highlight\n", r"\1 ", text))
    named = ", ".join(dict.fromkeys(entities))
    return [
        {"query": query, "passage": passage, "entities": named, "answers": list(dict.fromkeys(answers))}
        for query, answers in queries
    ]


def answer_texts(row: Row) -> Iterable[Row]:
    """SQuAD: the texts of the accepted answers without their positions; an official article as one row per question."""
    if "paragraphs" not in row:
        return [{**row, "answers": list(row["answers"]["text"])}]
    return [
        {
            "question": question["question"],
            "context": paragraph["context"],
            "answers": [answer["text"] for answer in question["answers"]],
        }
        for paragraph in row["paragraphs"]
        for question in paragraph["qas"]
    ]


@dataclass(frozen=True)
class TaskSpec:
    """One task.

    `labels` are the possible answers in the order of the data set's class numbers; None means free text.
    """

    name: str
    source: str  # template over the flat row's columns
    metrics: tuple[str, ...]  # keys of seq2seq.metrics.METRICS
    labels: tuple[str, ...] | None = None
    target: str = "label"  # column that holds the answer; a list holds all accepted ones
    split: str = "small"  # key of seq2seq.splits.SPLIT_POLICIES
    hub: tuple[str, str] | None = None  # repository and configuration
    folder: str = ""  # the task's folder in the official download
    data_dir: str | None = None  # directory of the folder, relative to the project, for the project's own tasks
    header: tuple[str, ...] | None = None  # column names, where the official tsv has no header line
    rename: Mapping[str, str] = field(default_factory=dict)  # official column -> the hub's column
    unpack: Callable[[Row], Iterable[Row]] | None = None  # one raw row -> flat rows
    group: str | None = None  # template that names the question a row belongs to

    @property
    def is_similarity(self) -> bool:
        """Whether the answers are numbers, to be compared by correlation."""
        return self.labels == SIMILARITY_LABELS

    @property
    def columns(self) -> frozenset[str]:
        """The columns a flat row must have."""
        templates = Formatter().parse(self.source + (self.group or ""))
        return frozenset({self.target, *(name.partition("[")[0] for _, name, _, _ in templates if name)})

    def flatten(self, raw: Row) -> Iterable[Row]:
        """The flat rows of one raw row."""
        row = {self.rename.get(column, column): value for column, value in raw.items()}
        return self.unpack(row) if self.unpack else [row]

    def example(self, row: Row) -> dict[str, Any]:
        """`source` and `target` of a flat row, `answers` where several are accepted and `group` where rows have one.

        Raises:
            ValueError: the answer is none of the task's labels.
        """
        example = {"source": self.source.format_map(row).strip(), "target": self.target_of(row)}
        if isinstance(row[self.target], list):
            example["answers"] = [str(answer) for answer in row[self.target]]
        if self.group is not None:
            example["group"] = self.group.format_map(row)
        return example

    def target_of(self, row: Row) -> str:
        """The text that must come out for a flat row: a label by name or by class number, a score, or free text."""
        answer = row[self.target]
        if isinstance(answer, list):
            answer = answer[0]
        if self.labels is None:
            return str(answer)
        if self.is_similarity:
            return similarity_label(answer)
        if answer in self.labels:
            return answer
        try:
            number = int(answer) if isinstance(answer, str) else operator.index(answer)
        except (TypeError, ValueError):
            number = -1
        if not 0 <= number < len(self.labels):
            raise ValueError(
                f"Task {self.name!r} has the labels {', '.join(self.labels)}, by name or by number from 0; a row "
                f"gives {answer!r}. Use files that have labels (GLUE's own test files have none)."
            )
        return self.labels[number]

    def parse(self, text: str) -> int | float | str | None:
        """What a generated text says: a class number, a score or a free text; None where it is none of the labels."""
        answer = text.strip()
        if self.labels is None:
            return answer
        if answer not in self.labels:
            return None
        return float(answer) if self.is_similarity else self.labels.index(answer)


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
        labels=("unacceptable", "acceptable"),
        metrics=("matthews",),
        folder="CoLA",
        header=("origin", "label", "mark", "sentence"),
    ),
    _glue(
        "sst2",
        source="sst2 sentence: {sentence}",
        labels=("negative", "positive"),
        metrics=("accuracy",),
        split="large",
        folder="SST-2",
    ),
    _glue(
        "mrpc",
        source="mrpc sentence1: {sentence1} sentence2: {sentence2}",
        labels=("not_equivalent", "equivalent"),
        metrics=("f1", "accuracy"),
        folder="MRPC",
        rename={"#1 String": "sentence1", "#2 String": "sentence2", "Quality": "label"},
    ),
    _glue(
        "qqp",
        source="qqp question1: {question1} question2: {question2}",
        labels=("not_duplicate", "duplicate"),
        metrics=("f1", "accuracy"),
        split="large",
        folder="QQP",
        rename={"is_duplicate": "label"},
    ),
    _glue(
        "stsb",
        source="stsb sentence1: {sentence1} sentence2: {sentence2}",
        labels=SIMILARITY_LABELS,
        metrics=("pearson", "spearman"),
        folder="STS-B",
        rename={"score": "label"},
    ),
    _glue(
        "mnli",
        source="mnli hypothesis: {hypothesis} premise: {premise}",
        labels=("entailment", "neutral", "contradiction"),
        metrics=("accuracy",),
        split="mnli",
        folder="MNLI",
        rename={"sentence1": "premise", "sentence2": "hypothesis", "gold_label": "label"},
    ),
    _glue(
        "qnli",
        source="qnli question: {question} sentence: {sentence}",
        labels=_ENTAILMENT,
        metrics=("accuracy",),
        split="large",
        folder="QNLI",
    ),
    _glue(
        "rte",
        source="rte sentence1: {sentence1} sentence2: {sentence2}",
        labels=_ENTAILMENT,
        metrics=("accuracy",),
        folder="RTE",
    ),
    _glue(
        "wnli",
        source="wnli sentence1: {sentence1} sentence2: {sentence2}",
        labels=("not_entailment", "entailment"),
        metrics=("accuracy",),
        folder="WNLI",
    ),
    # SuperGLUE (Wang et al. 2019)
    _super_glue(
        "boolq",
        source="boolq question: {question} passage: {passage}",
        labels=_BOOLEAN,
        metrics=("accuracy",),
        folder="BoolQ",
        rename={"answer": "label"},
    ),
    _super_glue(
        "cb",
        source="cb hypothesis: {hypothesis} premise: {premise}",
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
        labels=_BOOLEAN,
        metrics=("accuracy",),
        folder="WSC",
        unpack=mark_spans,
    ),
    _super_glue(
        "record",
        source="record query: {query} entities: {entities} passage: {passage}",
        target="answers",
        metrics=("squad_f1", "squad_exact_match"),  # ReCoRD's own are the same functions (Zhang et al. 2018)
        split="large",
        folder="ReCoRD",
        unpack=queries_of_passage,
    ),
    # SQuAD 1.1 (Rajpurkar et al. 2016)
    TaskSpec(
        name="squad",
        source="squad question: {question} context: {context}",
        target="answers",
        metrics=("squad_f1", "squad_exact_match"),
        split="large",
        hub=("rajpurkar/squad", "plain_text"),
        folder="SQuAD",
        unpack=answer_texts,
    ),
    # The small world: the project's own data, in GLUE's shapes; its answers are words of the backbone's vocabulary
    _world(
        "acceptability",
        source="world_acceptability sentence: {sentence}",
        labels=("wrong", "right"),
        metrics=("matthews",),
    ),
    _world(
        "sentiment",
        source="world_sentiment sentence: {sentence}",
        labels=("bad", "good"),
        metrics=("accuracy",),
    ),
    _world(
        "paraphrase",
        source="world_paraphrase sentence1: {sentence1} sentence2: {sentence2}",
        labels=("different", "same"),
        metrics=("f1",),
    ),
    _world(
        "entailment",
        source="world_entailment sentence1: {sentence1} sentence2: {sentence2}",
        labels=("true", "false"),
        metrics=("accuracy",),
        unpack=entailed_is_true,
    ),
    _world(
        "similarity",
        source="world_similarity sentence1: {sentence1} sentence2: {sentence2}",
        target="score",
        labels=SIMILARITY_LABELS,
        metrics=("spearman",),
    ),
)

TASKS: dict[str, TaskSpec] = {spec.name: spec for spec in _ALL}

OWN_FILES = TaskSpec(name="own_files", source="{source}", target="target", metrics=("exact_match",), split="given")
"""The task of a user's files with the columns `source` and `target`: any text to any text."""


def get_task(name: str) -> TaskSpec:
    """The task of that name.

    Raises:
        ConfigurationError: no such task; the message names the nearest one and all of them.
    """
    if name in TASKS:
        return TASKS[name]
    raise ConfigurationError(
        f"Key 'task_name' names a task, or is left out for files of one's own; given was {name!r}: "
        f"{nearest_name(name, TASKS)}"
    )
