"""The registry of tasks: templates, targets, labels, and counts of the real files."""

import pickle
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters import ConfigurationError
from seq2seq.tasks.files import read_rows
from seq2seq.tasks.metric_classes import METRICS
from seq2seq.tasks.raw_rows import mark_spans
from seq2seq.tasks.registry import CUSTOM_FILES, TASKS, get_task
from seq2seq.tasks.splits import SPLIT_POLICIES
from seq2seq.tasks.task_spec import SIMILARITY_LABELS, TaskSpec, similarity_label
from tests.seq2seq.tasks.data_files import REAL

needs_real_data = pytest.mark.skipif(not REAL.is_dir(), reason="the real task files are not on this machine")

PAIR = {"sentence1": "A b.", "sentence2": "C d."}
PAIR_TEXT = "sentence1: A b. sentence2: C d."


@pytest.mark.parametrize(
    ("task", "raw", "source", "target"),
    [
        ("cola", {"sentence": "Go.", "label": "0"}, "cola sentence: Go.", "unacceptable"),
        ("sst2", {"sentence": "fine . ", "label": 1}, "sst2 sentence: fine .", "positive"),
        ("mrpc", {"Quality": "1", "#1 String": "A b.", "#2 String": "C d."}, f"mrpc {PAIR_TEXT}", "equivalent"),
        ("mrpc", {**PAIR, "label": 0}, f"mrpc {PAIR_TEXT}", "not_equivalent"),
        (
            "qqp",
            {"question1": "A?", "question2": "B?", "is_duplicate": "1"},
            "qqp question1: A? question2: B?",
            "duplicate",
        ),
        ("stsb", {**PAIR, "score": "4.750"}, f"stsb {PAIR_TEXT}", "4.8"),
        ("stsb", {**PAIR, "label": 2.4}, f"stsb {PAIR_TEXT}", "2.4"),
        ("mnli", {**PAIR, "gold_label": "neutral"}, "mnli hypothesis: C d. premise: A b.", "neutral"),
        ("mnli", {"premise": "A", "hypothesis": "B", "label": 2}, "mnli hypothesis: B premise: A", "contradiction"),
        (
            "qnli",
            {"question": "A?", "sentence": "B", "label": "not_entailment"},
            "qnli question: A? sentence: B",
            "not_entailment",
        ),
        ("rte", {**PAIR, "label": "entailment"}, f"rte {PAIR_TEXT}", "entailment"),
        ("wnli", {**PAIR, "label": "1"}, f"wnli {PAIR_TEXT}", "entailment"),
        ("boolq", {"question": "a b", "passage": "C.", "label": True}, "boolq question: a b passage: C.", "True"),
        ("boolq", {"question": "a b", "passage": "C.", "answer": False}, "boolq question: a b passage: C.", "False"),
        ("cb", {"premise": "A", "hypothesis": "B", "label": 1}, "cb hypothesis: B premise: A", "contradiction"),
        (
            "copa",
            {"premise": "A.", "choice1": "B", "choice2": "C", "question": "effect", "label": 1},
            "copa choice1: B choice2: C premise: A. question: effect",
            "choice2",
        ),
        ("wic", {**PAIR, "word": "b", "label": False}, f"wic {PAIR_TEXT} word: b", "False"),
        (
            "wsc",
            {
                "text": "The old man fed Tom {x} as he slept",
                "target": {"span1_text": "the old man", "span1_index": 0, "span2_text": "he", "span2_index": 7},
                "label": True,
            },
            "wsc text: #The old man# fed Tom {x} as *he* slept",
            "True",
        ),
        (
            "wsc",
            {"text": "A b c", "span1_text": "A", "span1_index": 0, "span2_text": "c", "span2_index": 2, "label": 0},
            "wsc text: #A# b *c*",
            "False",
        ),
        (
            "wsc",  # the position of the pronoun is one word early, as in a row of the official validation set
            {
                "text": "Use it as Ann, who saw it, does",
                "target": {"span1_text": "Ann", "span1_index": 3, "span2_text": "it", "span2_index": 5},
                "label": 1,
            },
            "wsc text: Use it as #Ann,# who saw *it,* does",
            "True",
        ),
        (
            "squad",
            {"question": "A?", "context": "B", "answers": {"text": ["b", "B c"], "answer_start": [0, 1]}},
            "squad question: A? context: B",
            "b",
        ),
        (
            "record",
            {
                "passage": "Ann met Bo.\n@highlight\nBo left",
                "query": "@placeholder left",
                "entities": ["Ann", "Bo"],
                "answers": ["Bo"],
            },
            "record query: @placeholder left entities: Ann, Bo passage: Ann met Bo. Bo left",
            "Bo",
        ),
        (
            "world_acceptability",
            {"sentence": "A b .", "label": "1"},
            "world_acceptability sentence: A b .",
            "right",
        ),
        ("world_sentiment", {"sentence": "A b .", "label": "0"}, "world_sentiment sentence: A b .", "bad"),
        (
            "world_paraphrase",
            {**PAIR, "label": "1"},
            f"world_paraphrase {PAIR_TEXT}",
            TASKS["world_paraphrase"].labels[1],
        ),
        ("world_entailment", {**PAIR, "label": "entailment"}, f"world_entailment {PAIR_TEXT}", "true"),
        ("world_similarity", {**PAIR, "score": "3.4"}, f"world_similarity {PAIR_TEXT}", "3.4"),
    ],
)
def test_a_row_becomes_the_source_and_the_target(task, raw, source, target):
    spec = get_task(task)
    (row,) = spec.flatten(raw)
    example = spec.example(row)
    assert (example["source"], example["target"]) == (source, target)


def test_squad_keeps_all_accepted_answers_as_whole_strings():
    (row,) = TASKS["squad"].flatten({"question": "", "context": "", "answers": {"text": ["New York", "NY"]}})
    assert TASKS["squad"].example(row)["answers"] == ["New York", "NY"]


def test_official_and_hub_rows_of_squad_give_the_same_examples():
    spec = TASKS["squad"]
    answers = [{"text": "b", "answer_start": 0}, {"text": "B c", "answer_start": 1}]
    questions = [
        {"question": "A?", "id": "1", "answers": answers},
        {"question": "D?", "id": "2", "answers": answers[:1]},
    ]
    article = {"title": "T", "paragraphs": [{"context": "B", "qas": questions[:1]}, {"context": "E", "qas": questions}]}
    flat = [
        {"question": question, "context": context, "answers": {"text": texts, "answer_start": [0] * len(texts)}}
        for question, context, texts in (("A?", "B", ["b", "B c"]), ("A?", "E", ["b", "B c"]), ("D?", "E", ["b"]))
    ]
    examples = [spec.example(row) for row in spec.flatten(article)]
    assert examples == [spec.example(row) for raw in flat for row in spec.flatten(raw)]
    assert examples[2] == {"source": "squad question: D? context: E", "target": "b", "answers": ["b"]}


def test_official_and_hub_rows_of_record_give_the_same_examples():
    spec = TASKS["record"]
    text = 'Bo met Ann "here"\n@highlight\nBo left\n@highlight\nAnn stayed'
    spans = [{"start": 7, "end": 9}, {"start": 0, "end": 1}, {"start": 29, "end": 30}]  # the end is the last letter
    answers = [{"start": 0, "end": 1, "text": "Bo"}, {"start": 7, "end": 9, "text": "Ann"}, {"text": "Bo"}]
    questions = [{"query": "@placeholder ran", "answers": answers, "idx": 3}, {"query": "X", "answers": [answers[1]]}]
    nested = {"source": "Daily", "passage": {"text": text, "entities": spans}, "qas": questions, "idx": 7}
    flat = [
        {"passage": text, "query": query, "entities": ["Bo", "Ann"], "answers": texts, "idx": {"passage": 7}}
        for query, texts in (("@placeholder ran", ["Bo", "Ann"]), ("X", ["Ann"]))
    ]
    examples = [spec.example(row) for row in spec.flatten(nested)]
    assert examples == [spec.example(row) for raw in flat for row in spec.flatten(raw)]
    passage = 'Bo met Ann "here" Bo left. Ann stayed'
    assert examples[0] == {
        "source": f"record query: @placeholder ran entities: Bo, Ann passage: {passage}",
        "target": "Bo",
        "answers": ["Bo", "Ann"],
    }


def test_official_and_hub_rows_of_multirc_give_the_same_examples():
    spec = TASKS["multirc"]
    answers = [{"text": "x", "idx": 4, "label": 0}, {"text": "y", "idx": 5, "label": 1}]
    nested = {"idx": 7, "passage": {"text": "P", "questions": [{"question": "Q?", "idx": 3, "answers": answers}]}}
    flat = [
        {
            "paragraph": "P",
            "question": "Q?",
            "answer": answer["text"],
            "label": answer["label"],
            "idx": {"paragraph": 7, "question": 3, "answer": answer["idx"]},
        }
        for answer in answers
    ]
    examples = [spec.example(row) for row in spec.flatten(nested)]
    assert examples == [spec.example(row) for raw in flat for row in spec.flatten(raw)]
    assert examples[1] == {"source": "multirc question: Q? answer: y paragraph: P", "target": "True", "group": "7-3"}


@pytest.mark.parametrize("spec", [*TASKS.values(), CUSTOM_FILES], ids=lambda spec: spec.name)
def test_an_entry_refers_to_existing_metrics_and_split_policies(spec):
    assert spec.name in TASKS or spec is CUSTOM_FILES
    assert spec.split in SPLIT_POLICIES
    assert spec.metrics
    assert set(spec.metrics) <= METRICS.keys()
    assert spec.labels is None or len(set(spec.labels)) == len(spec.labels) > 1
    assert pickle.loads(pickle.dumps(spec)) == spec


@pytest.mark.parametrize("spec", [spec for spec in TASKS.values() if spec.labels], ids=lambda spec: spec.name)
def test_parse_accepts_every_label_and_nothing_else(spec):
    assert [spec.parse(f" {label}\n") for label in spec.labels] == (
        [step / 5 for step in range(26)] if spec.is_similarity else list(range(len(spec.labels)))
    )
    assert [spec.parse(text) for text in ("", "neither", spec.labels[0] + spec.labels[0], "4.75")] == [None] * 4


@pytest.mark.parametrize(
    ("given_answer", "label"), [("yes", 0), (1, 1), ("1", 1), (True, 1), (np.int64(0), 0), ("no", 1)]
)
def test_an_answer_is_a_label_an_index_or_a_boolean(given_answer, label):
    spec = type(CUSTOM_FILES)(name="t", source="{x}", metrics=("accuracy",), labels=("yes", "no"))
    assert spec.target_of({"label": given_answer}) == spec.labels[label]


@pytest.mark.parametrize("answer", ["maybe", "", -1, 2, "2", 0.5, None])
def test_an_answer_that_is_not_a_label_raises_an_error_with_the_labels(answer):
    with pytest.raises(ValueError, match="'rte' has the labels entailment, not_entailment"):
        TASKS["rte"].target_of({"label": answer})


def test_similarity_has_26_labels():
    assert len(SIMILARITY_LABELS) == 26
    assert (SIMILARITY_LABELS[0], SIMILARITY_LABELS[1], SIMILARITY_LABELS[-1]) == ("0.0", "0.2", "5.0")
    assert {similarity_label(score) for score in np.linspace(0, 5, 5001)} == set(SIMILARITY_LABELS)


@settings(max_examples=50)
@given(st.integers(0, 5000))
def test_a_similarity_label_is_the_nearest_fifth(thousandths):
    score = Fraction(thousandths, 1000)
    assert abs(Fraction(similarity_label(f"{thousandths / 1000:.3f}")) - score) <= Fraction(1, 10)


@pytest.mark.parametrize("score", [-0.1, 5.1, "nan", float("inf"), "high", "", None])
def test_a_score_outside_the_range_raises_an_error(score):
    with pytest.raises(ValueError, match=r"a number in \[0, 5\]"):
        similarity_label(score)


@pytest.mark.parametrize(
    ("name", "nearest"), [("rtee", "rte"), ("SST-2", "sst2"), ("world_sentinent", "world_sentiment")]
)
def test_an_unknown_task_suggests_the_nearest_name(name, nearest):
    sentence = f"'task_name' names a task.* got '{name}': did you mean '{nearest}'.* cola, .* sst2"
    with pytest.raises(ConfigurationError, match=sentence):
        get_task(name)


@pytest.mark.parametrize(
    ("span", "index", "message"),
    [
        ("Zed", 4, "'Zed' is neither in the text nor at the position 4"),
        ("Zed", -1, "nor at the position -1"),
        ("Zed or", 3, "nor at the position 3"),
        ("", 0, "a span has no text"),
        ("Zed", "x", "the position of a span is a number, got 'x'"),
    ],
)
def test_a_span_of_wsc_that_is_nowhere_is_refused(span, index, message):
    """Python would mark a word counted from the end, or one word before the other."""
    row = {"text": "Mark told Pete lies", "span1_text": span, "span1_index": index, "span2_text": "Pete"}
    with pytest.raises((IndexError, TypeError), match=message):
        list(mark_spans({**row, "span2_index": 2}))


@needs_real_data
@pytest.mark.parametrize(
    ("task", "file", "rows", "counts"),
    [
        ("cola", "glue/CoLA/train.tsv", 8551, {"acceptable": 6023, "unacceptable": 2528}),
        ("cola", "glue/CoLA/dev.tsv", 1043, {"acceptable": 721, "unacceptable": 322}),
        ("sst2", "glue/SST-2/train.tsv", 67349, {"positive": 37569, "negative": 29780}),
        ("sst2", "glue/SST-2/dev.tsv", 872, {"positive": 444, "negative": 428}),
        ("qnli", "glue/QNLI/dev.tsv", 5463, {"entailment": 2702, "not_entailment": 2761}),
        ("boolq", "super_glue/BoolQ/validation.jsonl", 3270, {"True": 2033, "False": 1237}),
        ("wsc", "super_glue/WSC/fewglue_val.jsonl", 104, {"True": 38, "False": 66}),
        ("stsb", "glue/STS-B/dev.tsv", 1500, None),
        ("stsb", "glue/STS-B/train.tsv", 5749, None),
        ("multirc", "super_glue/MultiRC/fewglue_val.jsonl", 4848, None),
    ],
)
def test_real_files_have_their_published_rows_and_labels(task, file, rows, counts):
    spec = get_task(task)
    targets = [spec.target_of(row) for raw in read_rows(REAL / file, spec.file_header) for row in spec.flatten(raw)]
    assert len(targets) == rows
    assert set(targets) <= set(spec.labels)
    if counts is not None:
        assert {label: targets.count(label) for label in spec.labels} == counts


def test_a_span_of_wsc_that_is_not_in_the_text_is_reported(caplog):
    row = {"text": "A b", "span1_text": "A", "span1_index": 0, "span2_text": "c", "span2_index": 1, "label": 0}
    (flat,) = TASKS["wsc"].flatten(row)
    assert flat["text"] == "#A# *b*"
    assert "The span 'c' of WSC is not in the text 'A b'" in caplog.text


def test_a_target_without_a_column_raises_an_error():
    with pytest.raises(ValueError, match=r"got 'coarse' for 't': write '\{coarse\}'"):
        TaskSpec(name="t", source="{x}", target="coarse", metrics=("accuracy",))
