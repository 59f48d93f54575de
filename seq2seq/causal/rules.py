"""Rules of a causal run's keys beyond their types and ranges; each violation is one sentence."""

import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from adapters import AdapterConfig
from adapters.validation import refuse
from seq2seq.causal.corpus import check_source
from seq2seq.causal.keys import CausalKeys
from seq2seq.tasks.rules import check_paths, check_tasks

_refuse = partial(refuse, where="the run")


def check_causal(keys: CausalKeys, configs: Sequence[AdapterConfig], training: Mapping[str, Any]) -> None:
    """Refuse tasks, texts and training arguments that do not fit each other."""
    check_template(keys)
    if keys.corpus is None:
        if keys.last_words is not None:
            _refuse("last_words", "belongs to a run with a corpus", repr(keys.last_words), "leave it out")
        check_suffixes(keys)
        check_tasks(keys, configs, training)
    else:
        check_corpus(keys, training)


def check_template(keys: CausalKeys) -> None:
    """Refuse a template without a source, or whose answer is not at its end."""
    template = keys.template
    if template is not None and not (template.endswith("{target}") and "{source}" in template):
        rule = "has {source}, and {target} at its end"
        _refuse("template", rule, repr(template), "write for example '{source}\\nAnswer: {target}'")
    if template is not None and (other := re.search(r"\{(?!source\}|target\})\w+\}", template)):
        fix = "describe the task under the key 'tasks', whose source has the columns of its rows"
        _refuse("template", "has no columns but {source} and {target}", f"{other[0]} in {template!r}", fix)


def check_suffixes(keys: CausalKeys) -> None:
    """Refuse plain text where files of rows are expected."""
    for split, path in keys.files.items():
        if path.endswith(".txt"):
            rule, fix = "names a file of rows with source and target", f"write corpus.{split}={path} to model its text"
            _refuse(keys.file_keys[split], rule, repr(path), fix)


def check_corpus(keys: CausalKeys, training: Mapping[str, Any]) -> None:
    """Refuse what a corpus excludes, and windows that share no token."""
    given = {
        "task_name": keys.task_name,
        "mixture": keys.mixture,
        "data_dir": keys.data_dir,
        "template": keys.template,
        "packing": keys.packing or None,
        **{keys.file_keys[split]: path for split, path in keys.files.items()},
        **{key: getattr(keys, key) for key in (f"max_{split}_samples" for split in ("train", "validation", "test"))},
    }
    for key, value in given.items():
        if value is not None:
            fix = "limit a corpus by corpus.max_tokens" if key.startswith("max_") else "leave one of them out"
            _refuse(key, "belongs to a run on rows", f"{value!r} with a corpus", fix)
    widest = keys.window - 1
    if keys.stride is not None and keys.stride > widest:
        _refuse("stride", f"is at most {widest}, so that windows share a token", keys.stride, "lower it")
    if training.get("train_sampling_strategy", "random") != "random":
        rule = "must be 'random' with a corpus, whose windows are drawn at seeded offsets"
        _refuse("train_sampling_strategy", rule, repr(training["train_sampling_strategy"]), "leave it out")
    if keys.last_words is not None:
        if "test" not in keys.splits:
            _refuse("last_words", "is measured with the test text", "none", "give corpus.test, or leave it out")
        check_source(keys.last_words, keys.corpus.column, "last_words")
    keys.corpus.check_files()
    check_paths(keys)
