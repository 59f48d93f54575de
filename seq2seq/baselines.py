"""What a task is worth without a language model: the most frequent answer, and a linear model on a bag of words.

A result means something only above these two. The bag of words counts a source's words and word pairs and knows nothing
of their order beyond that; classes are predicted by logistic regression, similarity scores by ridge regression.
"""

from collections import Counter

from datasets import Dataset
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline

from seq2seq.metrics import split_metrics
from seq2seq.tasks import TaskSpec, similarity_label


def majority(train: Dataset, test: Dataset, spec: TaskSpec) -> dict[str, float]:
    """The metrics on `test` of always giving the most frequent target of `train` (the first one among equals)."""
    answer = Counter(train["target"]).most_common(1)[0][0]
    return split_metrics(spec, [answer] * len(test), test)


def bag_of_words(train: Dataset, test: Dataset, spec: TaskSpec) -> dict[str, float]:
    """The metrics on `test` of a linear model on the counts of words and word pairs of `train`.

    Raises:
        ValueError: the task's answers are free text.
    """
    if spec.labels is None:
        raise ValueError(
            f"A bag of words predicts one of a task's labels; {spec.name!r} has free text. Take the majority alone."
        )
    if len(set(train["target"])) == 1:
        return majority(train, test, spec)
    words = CountVectorizer(ngram_range=(1, 2), token_pattern=r"(?u)\b\w+\b")
    if spec.is_similarity:
        model = make_pipeline(words, Ridge()).fit(train["source"][:], [float(score) for score in train["target"]])
        scores = model.predict(test["source"][:]).clip(0.0, 5.0)
        return split_metrics(spec, [similarity_label(score) for score in scores], test)
    model = make_pipeline(words, LogisticRegression(max_iter=1000)).fit(train["source"][:], train["target"][:])
    return split_metrics(spec, model.predict(test["source"][:]).tolist(), test)
