import numpy as np
import pytest
from datasets import Dataset

from seq2seq.tasks.baselines import bag_of_words, majority
from seq2seq.tasks.registry import CUSTOM_FILES, TASKS

WORDS = ("good", "bad", "dog", "cat")


def sentiment(rows, seed):
    """Rows whose one telling word is "good" or "bad", among words that tell nothing."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(2, size=rows)
    sources = [
        " ".join(rng.permutation([WORDS[1 - label], "dog", "cat", *rng.choice(list("xyz"), 3)])) for label in labels
    ]
    return Dataset.from_dict({"source": sources, "target": [TASKS["sst2"].labels[label] for label in labels]})


@pytest.mark.parametrize(
    ("task", "train", "test", "expected"),
    [
        ("sst2", ["positive", "positive", "negative"], ["positive", "negative"], {"accuracy": 0.5}),
        ("sst2", ["negative", "positive"], ["negative"], {"accuracy": 1.0}),
        ("cola", ["acceptable", "acceptable"], ["acceptable", "unacceptable"], {"matthews": 0.0}),
        ("mrpc", ["equivalent"], ["equivalent", "not_equivalent"], {"f1": 2 / 3, "accuracy": 0.5}),
        ("stsb", ["2.0", "3.0", "3.0"], ["3.0", "1.0"], {"pearson": 0.0, "spearman": 0.0}),
    ],
)
def test_majority_always_gives_the_most_frequent_target(task, train, test, expected):
    splits = [Dataset.from_dict({"source": ["s"] * len(targets), "target": targets}) for targets in (train, test)]
    results = majority(*splits, TASKS[task])
    assert {name: results[name] for name in expected} == pytest.approx(expected)
    assert (results["constant_predictions"], results["invalid"]) == (1.0, 0.0)


def test_majority_works_on_free_text_and_groups():
    texts = Dataset.from_dict({"source": ["s"] * 3, "target": ["x", "x", "y"], "answers": [["x"], ["x"], ["y", "x"]]})
    assert majority(texts, texts, CUSTOM_FILES)["exact_match"] == 1.0
    answers = Dataset.from_dict({"source": ["s"] * 3, "target": ["True", "True", "False"], "group": ["1", "1", "2"]})
    assert majority(answers, answers, TASKS["multirc"])["question_exact_match"] == 0.5


def test_bag_of_words_finds_telling_words():
    assert bag_of_words(sentiment(300, 1), sentiment(200, 2), TASKS["sst2"])["accuracy"] == 1.0


@pytest.mark.parametrize(
    ("texts", "solved"), [(("dog cat", "cat dog"), True), (("y dog y cat y", "y cat y dog y"), False)]
)
def test_bag_of_words_sees_the_order_of_neighbours_only(texts, solved):
    split = Dataset.from_dict({"source": texts * 20, "target": TASKS["sst2"].labels * 20})
    assert bag_of_words(split, split, TASKS["sst2"])["accuracy"] == (1.0 if solved else 0.5)


def test_bag_of_words_predicts_similarity_on_the_scale():
    scores = [f"{i % 26 / 5:.1f}" for i in range(104)]
    split = Dataset.from_dict({"source": ["same " * round(5 * float(score)) for score in scores], "target": scores})
    results = bag_of_words(split, split, TASKS["stsb"])
    assert results["pearson"] > 0.99
    assert results["invalid"] == 0.0


def test_bag_of_words_of_one_class_is_the_majority():
    train = Dataset.from_dict({"source": ["a", "b"], "target": ["positive"] * 2})
    assert bag_of_words(train, sentiment(20, 1), TASKS["sst2"]) == majority(train, sentiment(20, 1), TASKS["sst2"])


def test_bag_of_words_refuses_free_text():
    split = Dataset.from_dict({"source": ["a"], "target": ["b"]})
    with pytest.raises(ValueError, match="'own_files', which is free text"):
        bag_of_words(split, split, CUSTOM_FILES)
