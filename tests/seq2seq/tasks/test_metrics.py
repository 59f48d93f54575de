"""The metrics against scikit-learn, scipy and hand-computed values."""

import evaluate
import numpy as np
import pytest
import scipy.stats
import sklearn.metrics
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from seq2seq.tasks.metric_classes import METRICS, normalize_answer
from seq2seq.tasks.metrics import compute_metrics, split_metrics
from seq2seq.tasks.registry import CUSTOM_FILES, TASKS
from seq2seq.tasks.task_spec import SIMILARITY_LABELS, TaskSpec

CLASS_TASKS = {
    "accuracy": TASKS["mnli"],
    "f1": TaskSpec(name="f1", source="", metrics=("f1",), labels=("no", "yes")),
    "macro_f1": TaskSpec(name="macro_f1", source="", metrics=("macro_f1",), labels=("a", "b", "c")),
    "matthews": TASKS["cola"],
}
ORACLES = {
    "accuracy": sklearn.metrics.accuracy_score,
    "f1": lambda references, predictions: sklearn.metrics.f1_score(references, predictions, zero_division=0.0),
    "macro_f1": lambda references, predictions: sklearn.metrics.f1_score(
        references, predictions, average="macro", zero_division=0.0
    ),
}
text = st.text(alphabet="ab the,.", max_size=12)


def matthews_by_hand(references, predictions):
    pairs = list(zip(references, predictions, strict=True))
    tp, tn, fp, fn = (pairs.count(pair) for pair in ((1, 1), (0, 0), (0, 1), (1, 0)))
    product = (tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)
    return (tp * tn - fp * fn) / product**0.5 if product else 0.0


ORACLES["matthews"] = matthews_by_hand


@pytest.mark.parametrize("name", ORACLES)
@settings(max_examples=30)
@given(st.data())
def test_class_metrics_equal_their_oracle(name, data):
    spec = CLASS_TASKS[name]
    classes = st.lists(st.tuples(*[st.integers(0, len(spec.labels) - 1)] * 2), min_size=1, max_size=20)
    references, predictions = zip(*data.draw(classes), strict=True)
    results = compute_metrics(spec, [spec.labels[p] for p in predictions], [spec.labels[r] for r in references])
    assert results[name] == pytest.approx(ORACLES[name](list(references), list(predictions)), abs=1e-12)
    assert results["invalid"] == 0.0


@settings(max_examples=30)
@given(st.lists(st.tuples(*[st.sampled_from(SIMILARITY_LABELS)] * 2), min_size=2, max_size=20))
def test_correlations_equal_numpy_and_are_zero_if_undefined(pairs):
    references, predictions = zip(*pairs, strict=True)
    results = compute_metrics(TASKS["stsb"], predictions, references)
    if len(set(references)) > 1 and len(set(predictions)) > 1:
        x, y = np.array(predictions, dtype=float), np.array(references, dtype=float)
        assert results["pearson"] == pytest.approx(np.corrcoef(x, y)[0, 1], abs=1e-9)
        ranks = [scipy.stats.rankdata(values) for values in (x, y)]
        assert results["spearman"] == pytest.approx(np.corrcoef(*ranks)[0, 1], abs=1e-9)
    else:
        assert (results["pearson"], results["spearman"]) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("task", "predictions", "references", "expected"),
    [
        ("sst2", ["positive", "good"], ["positive", "negative"], {"accuracy": 1 / 2, "invalid": 1 / 2}),
        # as the other class, an invalid text costs recall on a positive and precision on a negative
        ("mrpc", ["equivalent", "?"], ["equivalent", "equivalent"], {"f1": 2 / 3, "accuracy": 1 / 2}),
        ("mrpc", ["equivalent", "?"], ["equivalent", "not_equivalent"], {"f1": 2 / 3, "accuracy": 1 / 2}),
        (
            "cola",
            ["?", "?"],
            ["acceptable", "unacceptable"],
            {"matthews": 0.0, "invalid": 1.0, "constant_predictions": 1.0},
        ),
        (
            "cb",
            ["entailment", "?", "neutral"],
            ["entailment", "contradiction", "neutral"],
            {"macro_f1": 2 / 3, "accuracy": 2 / 3},
        ),
        # three of four scores correlate perfectly
        (
            "stsb",
            ["0.0", "1.0", "x", "2.0"],
            ["1.0", "2.0", "0.0", "3.0"],
            {"pearson": 3 / 4, "spearman": 3 / 4, "invalid": 1 / 4},
        ),
        ("stsb", ["4.75", "", "five"], ["1.0", "2.0", "3.0"], {"pearson": 0.0, "spearman": 0.0, "invalid": 1.0}),
        ("stsb", ["1.0", "x"], ["1.0", "2.0"], {"pearson": 0.0, "spearman": 0.0, "invalid": 1 / 2}),
    ],
)
def test_text_that_is_not_a_label_is_wrong_and_counted(task, predictions, references, expected):
    results = compute_metrics(TASKS[task], predictions, references)
    assert {name: results[name] for name in expected} == pytest.approx(expected)


@pytest.mark.parametrize(
    ("prediction", "answer", "rouge1", "rouge2", "rouge_l"),  # computed by rouge-score 0.1.2, without stemming
    [
        ("the cat sat on the mat", "the cat was on the mat", 5 / 6, 3 / 5, 5 / 6),
        ("On the mat, the cat sat!", "the cat sat on the mat", 1, 4 / 5, 1 / 2),
        ("a", "a b", 2 / 3, 0, 2 / 3),
        ("a_b c-d's", "a b cd s", 2 / 3, 2 / 7, 2 / 3),
        ("the the the", "the cat the", 2 / 3, 0, 2 / 3),
        ("nothing", "else here", 0, 0, 0),
        ("one two three four", "four three two one", 1, 0, 1 / 4),
        ("police killed the gunman", "the gunman kill police 12.5", 3 / 5, 1 / 4, 2 / 5),
    ],
)
def test_rouge_equals_googles(prediction, answer, rouge1, rouge2, rouge_l):
    spec = TaskSpec(name="t", source="", metrics=("rouge1", "rouge2", "rougeL"))
    results = compute_metrics(spec, [prediction], [[answer, "of no use"]])
    assert [results[name] for name in spec.metrics] == pytest.approx([rouge1, rouge2, rouge_l])


@pytest.mark.parametrize("text", ["word", "Übung 学习", "!?", ""])
def test_rouge_of_equal_texts_is_one(text):
    spec = TaskSpec(name="t", source="", metrics=("rouge1", "rouge2", "rougeL"))
    assert compute_metrics(spec, [text], [text])["average_metrics"] == 1.0


@settings(max_examples=30)
@given(st.lists(st.sampled_from([*SIMILARITY_LABELS, "no label"]), min_size=2, max_size=12), st.data())
def test_an_invalid_score_never_makes_a_correlation_undefined(predictions, data):
    references = data.draw(
        st.lists(st.sampled_from(SIMILARITY_LABELS), min_size=len(predictions), max_size=len(predictions))
    )
    results = compute_metrics(TASKS["stsb"], predictions, references)
    valid = 1 - results["invalid"]
    assert all(-valid - 1e-9 <= results[name] <= valid + 1e-9 for name in ("pearson", "spearman"))


@pytest.mark.parametrize(
    ("task", "prediction", "references", "expected"),
    [
        ("cola", "acceptable", ["acceptable", "unacceptable"], {"matthews": 0.0}),
        ("cola", "acceptable", ["acceptable", "acceptable"], {"matthews": 0.0}),
        ("stsb", "2.0", ["1.0", "2.0"], {"pearson": 0.0, "spearman": 0.0}),
        ("mrpc", "not_equivalent", ["not_equivalent", "not_equivalent"], {"f1": 0.0, "accuracy": 1.0}),
    ],
)
def test_constant_predictions_have_defined_metrics_and_a_flag(task, prediction, references, expected):
    results = compute_metrics(TASKS[task], [prediction] * 2, references)
    assert {name: results[name] for name in expected} == expected
    assert results["constant_predictions"] == 1.0


def test_varying_predictions_have_no_flag():
    assert compute_metrics(TASKS["rte"], TASKS["rte"].labels, TASKS["rte"].labels)["constant_predictions"] == 0.0


def test_constant_references_have_no_correlation():
    assert compute_metrics(TASKS["stsb"], ["1.0", "2.0"], ["3.0", "3.0"])["pearson"] == 0.0
    assert compute_metrics(TASKS["cola"], ["acceptable", "unacceptable"], ["acceptable"] * 2)["matthews"] == 0.0


def test_multirc_counts_questions_and_answers():
    predictions = ["True", "False", "True", "True", "?", "False"]
    references = ["True", "False", "True", "False", "True", "False"]
    results = compute_metrics(TASKS["multirc"], predictions, references, groups=["1", "1", "2", "2", "3", "3"])
    assert results["question_exact_match"] == pytest.approx(1 / 3)
    assert results["f1a"] == pytest.approx(2 * 2 / (2 * 2 + 1 + 1))
    assert results["average_metrics"] == pytest.approx((1 / 3 + 2 / 3) / 2)


@pytest.mark.parametrize(
    ("prediction", "answers", "f1", "exact"),
    [
        ("The  cat!", ["cat"], 1.0, 1.0),
        ("cat", ["tac"], 0.0, 0.0),  # the same letters are not the same word
        ("New York City", ["New York", "Boston"], 4 / 5, 0.0),
        ("new york", ["Boston", "New York."], 1.0, 1.0),
        ("a b b", ["b b c"], 4 / 5, 0.0),
        ("", ["the"], 1.0, 1.0),
        ("", ["x"], 0.0, 0.0),
    ],
)
@pytest.mark.parametrize("task", ["squad", "record"])
def test_squad_metrics_use_the_best_accepted_answer(task, prediction, answers, f1, exact):
    results = compute_metrics(TASKS[task], [prediction], [answers])
    assert (results["squad_f1"], results["squad_exact_match"]) == (pytest.approx(f1), exact)
    assert "invalid" not in results


@settings(max_examples=30)
@given(text, text)
def test_exact_match_never_exceeds_f1(prediction, answer):
    results = compute_metrics(TASKS["squad"], [prediction], [answer])
    assert 0.0 <= results["squad_exact_match"] <= results["squad_f1"] <= 1.0
    assert compute_metrics(TASKS["squad"], [answer], [answer])["squad_f1"] == 1.0
    assert normalize_answer(normalize_answer(answer)) == normalize_answer(answer)


def test_custom_files_need_an_exact_match_up_to_outer_space():
    results = compute_metrics(CUSTOM_FILES, [" The cat\n", "the cat", "cat"], ["The cat", "The cat", ["dog", "cat "]])
    assert results == {
        "exact_match": pytest.approx(2 / 3),
        "average_metrics": pytest.approx(2 / 3),
        "constant_predictions": 0.0,
    }


@pytest.mark.parametrize("task", ["qqp", "cb"])
def test_average_metrics_is_the_mean_of_the_tasks_metrics(task):
    spec = TASKS[task]
    results = compute_metrics(spec, [spec.labels[i] for i in (0, 1, 1, 1)], [spec.labels[i] for i in (0, 1, 0, 1)])
    one, other = (results[name] for name in spec.metrics)
    assert one != other
    assert results["average_metrics"] == pytest.approx((one + other) / 2)
    assert all(isinstance(value, float) for value in results.values())


def test_split_metrics_use_the_answers_and_groups_of_the_split():
    squad = Dataset.from_dict({"source": ["s"], "target": ["x"], "answers": [["x", "y"]]})
    assert split_metrics(TASKS["squad"], ["y"], squad)["squad_exact_match"] == 1.0
    multirc = Dataset.from_dict({"source": ["s"] * 2, "target": ["True"] * 2, "group": ["1-1"] * 2})
    assert split_metrics(TASKS["multirc"], ["True", "False"], multirc)["question_exact_match"] == 0.0


@pytest.mark.parametrize("name", METRICS)
def test_metrics_implement_the_interface_of_evaluate(name):
    metric = METRICS[name]()
    assert isinstance(metric, evaluate.Metric)
    assert metric.description
    samples = {"int64": [1], "float64": [1.0], "string": ["x"]}
    metric.add_batch(
        **{
            column: samples[feature.dtype] if hasattr(feature, "dtype") else [["x"]]
            for column, feature in metric.features.items()
        }
    )
    assert list(metric.compute()) == [name]


@pytest.mark.parametrize(
    ("task", "predictions", "references", "groups", "message"),
    [
        ("rte", ["entailment"], ["entailment"] * 2, None, "got 1 predictions, 2 references"),
        ("rte", [], [], None, "at least one; got 0 predictions"),
        ("multirc", ["True"], ["True"], ["1", "2"], "1 references, 2 groups"),
        ("multirc", ["True"], ["True"], None, "got no groups"),
        ("rte", ["entailment"], ["yes"], None, "among its labels entailment, not_entailment; got 'yes'"),
        ("stsb", ["1.0"], ["1.1"], None, "got '1.1'"),
    ],
)
def test_invalid_arguments_raise_an_error(task, predictions, references, groups, message):
    with pytest.raises(ValueError, match=message):
        compute_metrics(TASKS[task], predictions, references, groups)
