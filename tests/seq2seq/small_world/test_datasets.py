"""The five data sets on disk: reproducible, correctly labelled, without overlap between splits, balanced, and not
solvable from single words."""

import itertools
import re
from collections import Counter

import pytest

from seq2seq.small_world import lexicon
from seq2seq.small_world.datasets import DATA_SETS, SPLITS, TASKS, rows, write
from seq2seq.tasks.baselines import bag_of_words
from seq2seq.tasks.files import read_rows
from seq2seq.tasks.registry import TASKS as SPECS
from seq2seq.tasks.sources import load_splits
from tests.seq2seq.small_world.readings import BASE_OF, content, favourable

NAMES = list(DATA_SETS)


@pytest.fixture(scope="module", params=NAMES)
def data_set(request):
    """The name of a data set and its rows by split."""
    return request.param, rows(request.param)


def all_rows(name: str) -> list[tuple[str, ...]]:
    return [row for split in rows(name).values() for row in split]


def test_the_generators_reproduce_the_files(tmp_path):
    write(tmp_path)
    written = {path.relative_to(tmp_path): path.read_bytes() for path in tmp_path.rglob("*.tsv")}
    assert len(written) == len(NAMES) * len(SPLITS)
    assert written == {path.relative_to(TASKS): path.read_bytes() for path in TASKS.rglob("*") if path.is_file()}
    assert sum(map(len, written.values())) < 1.5e6


def test_a_file_has_a_header_and_a_row_per_item(data_set):
    name, splits = data_set
    for split, items in splits.items():
        read = list(read_rows(TASKS / name / f"{split}.tsv"))
        assert [tuple(row[column] for column in DATA_SETS[name].columns) for row in read] == items
        assert len(items) == SPLITS[split]


def test_no_row_occurs_twice_within_or_across_splits(data_set):
    _, splits = data_set
    seen = Counter(frozenset(row[:-1]) for items in splits.values() for row in items)
    assert max(seen.values()) == 1


def test_labels_are_balanced(data_set):
    name, splits = data_set
    for items in splits.values():
        counts = Counter(row[-1] for row in items)
        assert set(counts) == set(DATA_SETS[name].labels.values())
        assert max(counts.values()) - min(counts.values()) <= 1


def test_the_task_of_that_name_reads_the_files(data_set):
    name, splits = data_set
    loaded = load_splits(SPECS[f"world_{name}"])
    assert {split: len(loaded[split]) for split in loaded} == SPLITS
    sentences = [sentence for row in splits["test"] for sentence in row[:-1]]
    assert all(sentence in " ".join(loaded["test"]["source"]) for sentence in sentences[:20])


@pytest.mark.parametrize(
    ("name", "metric", "at_most"),
    [
        ("acceptability", "matthews", 0.15),
        ("sentiment", "accuracy", 0.70),
        ("paraphrase", "f1", 0.60),
        ("entailment", "accuracy", 0.60),
        ("similarity", "spearman", 0.25),
    ],
)
def test_a_bag_of_words_learns_little(name, metric, at_most):
    spec = SPECS[f"world_{name}"]
    splits = load_splits(spec)
    assert bag_of_words(splits["train"], splits["test"], spec)[metric] < at_most


def test_paraphrases_have_the_same_content():
    assert all(content(first) == content(second) for first, second, label in all_rows("paraphrase") if label == "1")


def test_non_paraphrases_differ_in_a_word_or_in_the_agent():
    for first, second, label in all_rows("paraphrase"):
        if label == "0" and content(first) == content(second):
            assert doer(first) != doer(second) or described(first) != described(second)


def doer(text: str) -> str:
    """The noun of the agent: before the verb, or after `by` in a passive."""
    words = [word for word in text.split() if word != "not"]
    verb = next(at for at, word in enumerate(words) if word in VERB_FORMS)
    passive = any(word in ("was", "were", "been", "be") for word in words[:verb])
    half = words[words.index("by", verb) + 1 :] if passive else words[:verb]
    noun = next(word for word in half if BASE_OF.get(word, word) in lexicon.KIND_OF or word in lexicon.PEOPLE)
    return min(BASE_OF.get(noun, noun), lexicon.SYNONYMS.get(BASE_OF.get(noun, noun), BASE_OF.get(noun, noun)))


def described(text: str) -> set[tuple[str, str]]:
    """The pairs of adjective and noun, both in canonical form."""
    words = [BASE_OF.get(word, word) for word in text.split()]
    words = [min(word, lexicon.SYNONYMS.get(word, word)) for word in words]
    return {(word, noun) for word, noun in itertools.pairwise(words) if word in ADJECTIVES}


ADJECTIVES = {*lexicon.THING_ADJECTIVES, *lexicon.BEING_ADJECTIVES, *lexicon.COLOURS}
VERB_FORMS = {form for verb in lexicon.VERBS.values() for form in (verb.past, verb.participle, verb.base)}


def test_an_entailed_hypothesis_adds_nothing():
    for premise, hypothesis, label in all_rows("entailment"):
        if label == "entailment":
            assert content(hypothesis) <= content(premise)
            assert ("not" in premise.split()) == ("not" in hypothesis.split())
            assert doer(premise) == doer(hypothesis)
        else:
            news = content(hypothesis) - content(premise)
            denial = ("not" in premise.split()) != ("not" in hypothesis.split())
            otherwise = doer(premise) != doer(hypothesis) or not described(hypothesis) <= described(premise)
            assert news or denial or otherwise


def test_a_similarity_score_counts_the_shared_respects():
    for first, second, score in all_rows("similarity"):
        shared = sum(phrase in first and phrase in second for phrase in (*lexicon.PLACES, *lexicon.TIMES))
        ours, theirs = (content(text) - {"the", "a", "some"} for text in (first, second))
        outside = {word for phrase in (*lexicon.PLACES, *lexicon.TIMES) for word in phrase.split()}
        assert shared + len((ours & theirs) - outside) == float(score)


def test_the_sentiment_is_that_of_the_decisive_clause():
    for review, label in all_rows("sentiment"):
        clauses = re.split(r" , |(?<!anything) but ", review)
        if len(clauses) == 2 and "although" in review:
            (counts,) = [clause for clause in clauses if "although" not in clause]
        else:
            counts = clauses[-1]
        assert favourable(counts) == (label == "1")


def is_acceptable(text: str) -> bool:
    """Check the grammar rules that the errors violate, one by one."""
    words = text.split()
    if "himself" in words or "herself" in words:
        return ("himself" in words) == (words[0] in lexicon.MEN)
    verb = next(at for at, word in enumerate(words) if word in VERB_FORMS)
    before = words[:verb]
    if "has" in before or "have" in before or "will" in before:
        verbs = [each for each in lexicon.VERBS.values() if words[verb] in (each.base, each.past, each.participle)]
        right = {each.base if "will" in before and "be" not in before else each.participle for each in verbs}
        if words[verb] not in right:
            return False
    elif ("by" in words[verb : verb + 2]) != bool({"was", "were"} & set(before)):
        return False
    helpers = [word for word in before if word in ("was", "were", "has", "have")]
    plural = before[0] == "some" or any(word in PLURALS for word in before[1:3][: 2 if "near" not in before[:3] else 1])
    return not helpers or (helpers[0] in ("were", "have")) == plural


PLURALS = {lexicon.plural(noun) for noun in lexicon.KIND_OF}


def test_a_sentence_is_acceptable_if_and_only_if_it_violates_no_rule():
    assert [(text, label) for text, label in all_rows("acceptability") if is_acceptable(text) != (label == "1")] == []
