"""What a result has to be compared with. It means something only above all four:

    majority           always the most frequent answer
    bag_of_words       a linear model on the counts of words and word pairs: logistic regression for classes, ridge
                       regression for scores
    frozen_backbone    the pretrained model without an adapter
    random_backbone    the same adapter trained in the same way in a backbone that was never trained

The first two are made for each task of a run on its own, the others once for all of them.

A new baseline is one function, one line of BASELINES, and its name among those that ``RunArguments.baselines`` takes.
"""

import copy
import logging
import tempfile
from collections import Counter
from collections.abc import Callable
from functools import partial

from datasets import Dataset
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from transformers import set_seed

from seq2seq.run_folder import RunFolder, read_json, write_json
from seq2seq.tasks.metrics import average_over_tasks, split_metrics
from seq2seq.tasks.task_spec import TaskSpec, similarity_label
from seq2seq.text.backbone import load_backbone
from seq2seq.text.preparation import Prepared, attach_adapters
from seq2seq.text.training import make_trainer, predict

logger = logging.getLogger(__name__)


def measure_baselines(prepared: Prepared, folder: RunFolder) -> dict[str, dict[str, float]]:
    """The metrics of each baseline asked for, on the test split (else validation); those measured before are kept."""
    found = read_json(folder.baselines) if folder.baselines.is_file() else {}
    split = "test" if all("test" in task.splits for task in prepared.tasks.values()) else "validation"
    for name in prepared.experiment.run.baselines:
        if name in found:
            continue
        logger.info("Measuring the baseline %s.", name)
        found[name] = BASELINES[name](prepared, split)
        if prepared.arguments.process_index == 0:
            write_json(folder.baselines, found)
    return {name: found[name] for name in prepared.experiment.run.baselines}


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


def frozen_backbone(prepared: Prepared, split: str) -> dict[str, float]:
    """The metrics of the pretrained model as it is."""
    trainer = make_trainer(prepared, load_backbone(prepared.experiment), prepared.arguments)
    return predict(prepared, trainer, split)[0]


def random_backbone(prepared: Prepared, split: str) -> dict[str, float]:
    """The metrics of the same adapter, trained and chosen in the same way, in a model of the same shape at random."""
    arguments = copy.copy(prepared.arguments)  # a second object of its own would set up the processes anew
    arguments.report_to = []
    set_seed(arguments.seed)
    model = attach_adapters(prepared.experiment, load_backbone(prepared.experiment, random=True))
    with tempfile.TemporaryDirectory() as directory:
        arguments.output_dir = directory
        trainer = make_trainer(prepared, model, arguments)
        trainer.train()
        return predict(prepared, trainer, split)[0]


def task_by_task(
    prepared: Prepared, split: str, measure: Callable[[Dataset, Dataset, TaskSpec], dict[str, float]]
) -> dict[str, float]:
    """The metrics of a baseline that knows one task, made from each task's training rows."""
    return average_over_tasks(
        {name: measure(task.splits["train"], task.splits[split], task.spec) for name, task in prepared.tasks.items()}
    )


BASELINES: dict[str, Callable[[Prepared, str], dict[str, float]]] = {
    "majority": partial(task_by_task, measure=majority),
    "bag_of_words": partial(task_by_task, measure=bag_of_words),
    "frozen_backbone": frozen_backbone,
    "random_backbone": random_backbone,
}
