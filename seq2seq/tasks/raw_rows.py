"""Flatten the raw rows of tasks with their own structure: nested passages, word positions, several accepted answers."""

import re
from collections.abc import Iterable

from seq2seq.tasks.files import Row


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
    """WSC: enclose the noun in # and the pronoun in *; positions count words, as in SuperGLUE's files."""
    flat = {**row, **row.get("target", {})}
    words = flat["text"].split(" ")
    for span, mark in (("span1", "#"), ("span2", "*")):
        first = flat[f"{span}_index"]
        last = first + len(flat[f"{span}_text"].split()) - 1
        words[first] = mark + words[first]
        words[last] = words[last] + mark
    return [{**flat, "text": " ".join(words)}]


def entailed_is_true(row: Row) -> Iterable[Row]:
    """World entailment: map entailment to "true" and not_entailment to "false"."""
    return [{**row, "label": {"entailment": "true", "not_entailment": "false"}.get(row["label"], row["label"])}]


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
        text, entities = row["passage"], row["entities"]
        queries = [(row["query"], list(row["answers"]))]
    passage = re.sub(r"\n@highlight\n", ". ", re.sub(r"([.?!\"'])\n@highlight\n", r"\1 ", text))
    named = ", ".join(dict.fromkeys(entities))
    return [
        {"query": query, "passage": passage, "entities": named, "answers": list(dict.fromkeys(answers))}
        for query, answers in queries
    ]


def answer_texts(row: Row) -> Iterable[Row]:
    """SQuAD: keep the accepted answers without their positions; an official article gives one row per question."""
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
