"""Targets that a tokenizer cannot write: they are encoded, decoded as a generated text is, and compared.

    "a {b}" -> "a b"        T5's vocabulary has no {, }, <, ~ and no line feed, and a space only between words
    "True"  -> "rue"        the embedded backbone's has no capital letters

No model can generate such a target, however well it is trained. A label that does not come back is refused; free text
is counted and reported, with the metrics of a model that writes every target as well as its tokenizer can.
"""

import logging
import reprlib
from collections.abc import Iterable, Mapping

from datasets import DatasetDict
from transformers import PreTrainedTokenizerBase

from adapters import ConfigurationError
from seq2seq.tasks.metrics import split_metrics
from seq2seq.tasks.task_spec import TaskSpec
from seq2seq.text.encoding import decode

logger = logging.getLogger(__name__)


def unwritable(spec: TaskSpec, targets: Iterable[str], tokenizer: PreTrainedTokenizerBase) -> dict[str, str]:
    """What comes back, for each distinct target that does not come back as the same answer of the task."""
    distinct = list(dict.fromkeys(targets))
    written = decode(tokenizer, tokenizer(text_target=distinct, verbose=False)["input_ids"]) if distinct else []
    pairs = zip(distinct, written, strict=True)
    return {target: text for target, text in pairs if spec.parse(text) != spec.parse(target)}


def check_labels(spec: TaskSpec, tokenizer: PreTrainedTokenizerBase, model: str, max_target_length: int) -> None:
    """Refuse labels that a model with this tokenizer cannot answer within the tokens of a target.

    Raises:
        ConfigurationError: the labels, and what comes back instead.
    """
    if spec.labels is None:
        return
    if changed := unwritable(spec, spec.labels, tokenizer):
        given = ", ".join(f"{text!r} for {label!r}" for label, text in changed.items())
        raise ConfigurationError(
            f"Key 'model_name_or_path' names a model whose tokenizer can write the labels of task {spec.name!r}; got "
            f"{model!r}, which writes {given}: choose another model, or describe the task under the key 'tasks' with "
            "labels that it can write."
        )
    lengths = [len(ids) for ids in tokenizer(text_target=list(spec.labels))["input_ids"]]
    longest = max(range(len(lengths)), key=lengths.__getitem__)
    if lengths[longest] > max_target_length:
        raise ConfigurationError(
            f"Key 'max_target_length' must leave room for each label of task {spec.name!r}; got {max_target_length}, "
            f"and {spec.labels[longest]!r} has {lengths[longest]} tokens: set it to {lengths[longest]}."
        )


def report_free_text(spec: TaskSpec, splits: DatasetDict, tokenizer: PreTrainedTokenizerBase) -> Mapping[str, str]:
    """Warn of free-text targets that do not come back, with the best that each evaluated split allows; return them."""
    if spec.labels is not None:
        return {}
    targets = [target for rows in splits.values() for target in rows["target"]]
    changed = unwritable(spec, targets, tokenizer)
    if changed:
        target, text = next(iter(changed.items()))
        best = []
        for split in ("validation", "test"):
            if split in splits:
                written = [changed.get(target, target) for target in splits[split]["target"]]
                metrics = split_metrics(spec, written, splits[split])
                best += [f"{name} {metrics[name]:.4f} on {split}" for name in spec.metrics]
        logger.warning(
            "%s: the tokenizer cannot write %d of %d distinct targets (%d of %d rows), for example %s becomes %s%s.",
            spec.name,
            len(changed),
            len(set(targets)),
            sum(target in changed for target in targets),
            len(targets),
            reprlib.repr(target),
            reprlib.repr(text),
            f"; a perfect model scores {', '.join(best)}" if best else "",
        )
    return changed
