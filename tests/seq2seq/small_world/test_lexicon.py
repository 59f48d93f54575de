"""Consistency of the lexicon: synonyms, opposites and kinds."""

import pytest

from seq2seq.small_world import lexicon


def test_synonyms_are_symmetric():
    assert {word: lexicon.SYNONYMS[twin] for word, twin in lexicon.SYNONYMS.items()} == {w: w for w in lexicon.SYNONYMS}
    assert not [word for word, twin in lexicon.SYNONYMS.items() if word == twin]


def test_opposites_are_symmetric_and_not_synonyms():
    assert {word: lexicon.OPPOSITES[other] for word, other in lexicon.OPPOSITES.items()} == {
        word: word for word in lexicon.OPPOSITES
    }
    assert not [word for word, other in lexicon.OPPOSITES.items() if lexicon.SYNONYMS.get(word) == other]


def test_praise_and_blame_are_disjoint_and_paired():
    assert not set(lexicon.PRAISE) & set(lexicon.BLAME)
    assert {lexicon.OPPOSITES[word] for word in lexicon.PRAISE} == set(lexicon.BLAME)


@pytest.mark.parametrize(
    ("noun", "kinds"),
    [("duck", ("bird", "animal")), ("dog", ("animal",)), ("apple", ("fruit", "food")), ("tom", ()), ("animal", ())],
)
def test_kinds_above_climbs_the_taxonomy(noun, kinds):
    assert lexicon.kinds_above(noun) == kinds


def test_members_are_the_leaves_of_the_taxonomy():
    assert {"duck", "dog"} < set(lexicon.members_of("animal"))
    assert "bird" not in lexicon.members_of("animal")
    assert set(lexicon.members_of("bird")) == {"duck", "crow", "owl", "hen"}


def test_synonymous_nouns_are_of_the_same_kind():
    assert [lexicon.kinds_above(a) for a, _ in lexicon.NOUN_SYNONYMS] == [
        lexicon.kinds_above(b) for _, b in lexicon.NOUN_SYNONYMS
    ]


@pytest.mark.parametrize("pair", [*lexicon.VERB_SYNONYMS, *lexicon.VERB_OPPOSITES])
def test_paired_verbs_share_a_kind_of_patient(pair):
    first, second = (set(lexicon.VERBS[base].patients) for base in pair)
    assert first & second


@pytest.mark.parametrize(
    ("noun", "expected"), [("duck", "a duck"), ("owl", "an owl"), ("furniture", "furniture"), ("egg", "an egg")]
)
def test_articles(noun, expected):
    assert lexicon.with_article(noun) == expected


@pytest.mark.parametrize(("noun", "expected"), [("dog", "dogs"), ("child", "children"), ("bunny", "bunnies")])
def test_plurals(noun, expected):
    assert lexicon.plural(noun) == expected
