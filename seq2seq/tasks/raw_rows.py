"""Flatten the raw rows of tasks with their own structure: nested passages, word positions, several accepted answers."""

import logging
import re
from collections.abc import Iterable

from seq2seq.tasks.files import Row

logger = logging.getLogger(__name__)


def answers_per_question(row: Row) -> Iterable[Row]:
    """MultiRC: turn SuperGLUE's nested passage into one row per answer; the hub's rows are already flat."""
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
    """Mark WSC's noun with # and its pronoun with *; positions count words, as in SuperGLUE's files.

    If the words at a position are not those of the span, as in one row of the official validation set, the nearest
    occurrence of the span is marked; if there is none, a warning says so and the position stands.

    Raises:
        TypeError: a span has no text, or a position is no number.
        IndexError: a span is neither in the text nor at its position.
    """
    flat = {**row, **row.get("target", {})}
    words = flat["text"].split(" ")
    marked = list(words)
    for span, mark in (("span1", "#"), ("span2", "*")):
        first, last = _find(words, flat[f"{span}_text"].split(), _position(flat[f"{span}_index"]))
        marked[first] = mark + marked[first]
        marked[last] = marked[last] + mark
    return [{**flat, "text": " ".join(marked)}]


def _find(words: list[str], span: list[str], index: int) -> tuple[int, int]:
    """Return the positions of the first and the last word of the occurrence of ``span`` nearest to ``index``."""
    if not span:
        raise TypeError("a span has no text")
    found = [k for k in range(len(words)) if _bare(words[k : k + len(span)]) == _bare(span)]
    if not found:
        if not 0 <= index <= len(words) - len(span):
            raise IndexError(f"the span {' '.join(span)!r} is neither in the text nor at the position {index}")
        logger.warning("The span %r of WSC is not in the text %r.", " ".join(span), " ".join(words))
    first = min(found, key=lambda k: abs(k - index), default=index)
    return first, first + len(span) - 1


def _position(cell: str | int) -> int:
    try:
        return int(cell)
    except ValueError:
        raise TypeError(f"the position of a span is a number, got {cell!r}") from None


def _bare(words: list[str]) -> list[str]:
    """Return words without case and without punctuation around them."""
    return [re.sub(r"^\W+|\W+$", "", word).casefold() for word in words]


def entailed_is_true(row: Row) -> Iterable[Row]:
    """World entailment: map entailment to "true" and not_entailment to "false"."""
    label = row.get("label")
    return [{**row, "label": {"entailment": "true", "not_entailment": "false"}.get(label, label)}]


def optional_pair(row: Row) -> Iterable[Row]:
    """Your own files for a classifier: the second text is empty in files without one."""
    return [{"text_pair": "", **row}]


def queries_of_passage(row: Row) -> Iterable[Row]:
    """ReCoRD: one row per query with all accepted answers, from SuperGLUE's nested passage or a flat row of the hub.

    Entities are listed once each, in the order in which the passage mentions them. The passage's @highlight lines
    become sentences (Raffel et al. 2020). Raffel et al. make one training row per answer; here a query is one row and
    training uses its first answer, so that a row is a query in training, in evaluation and in `max_*_samples`.
    """
    if "qas" in row:
        text, spans = row["passage"]["text"], row["passage"]["entities"]
        entities = [text[span["start"] : span["end"] + 1] for span in sorted(spans, key=lambda span: span["start"])]
        queries = [(qa["query"], [answer["text"] for answer in qa.get("answers", [])]) for qa in row["qas"]]
    else:
        for column in ("entities", "answers"):
            if isinstance(row.get(column), str):  # as in a csv file
                raise TypeError(f"{column!r} is a list, got text")
        text, entities = row["passage"], row["entities"]
        queries = [(row["query"], list(row.get("answers") or []))]
    passage = re.sub(r"\n@highlight\n", ". ", re.sub(r"([.?!\"'])\n@highlight\n", r"\1 ", text))
    named = ", ".join(dict.fromkeys(entities))
    return [
        {"query": query, "passage": passage, "entities": named, "answers": list(dict.fromkeys(answers))}
        for query, answers in queries
    ]


def answer_texts(row: Row) -> Iterable[Row]:
    """SQuAD: keep the accepted answers without their positions; an official article gives one row per question."""
    if "paragraphs" not in row:
        return [{**row, "answers": list(row["answers"]["text"])} if row.get("answers") else row]
    return [
        {
            "question": question["question"],
            "context": paragraph["context"],
            "answers": [answer["text"] for answer in question.get("answers", [])],
        }
        for paragraph in row["paragraphs"]
        for question in paragraph["qas"]
    ]
