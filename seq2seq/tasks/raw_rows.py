"""Raw rows of a form of their own made flat: nested passages, positions of words, several accepted answers."""

import re
from collections.abc import Iterable

from seq2seq.tasks.files import Row


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
