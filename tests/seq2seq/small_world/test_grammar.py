"""Events rendered in English, against hand-written sentences."""

from dataclasses import replace

import pytest

from seq2seq.small_world import grammar
from seq2seq.small_world.events import Event, NounPhrase

TOM = NounPhrase("tom")
DOGS = NounPhrase("dog", plural=True)
OWL = NounPhrase("owl", adjective="old", definite=False)
SEE = Event(DOGS, "see", OWL, place="near the river", time="at noon")


@pytest.mark.parametrize(
    ("phrase", "expected"),
    [
        (TOM, "tom"),
        (DOGS, "the dogs"),
        (OWL, "an old owl"),
        (replace(OWL, adjective="big"), "a big owl"),
        (replace(DOGS, definite=False), "some dogs"),
        (NounPhrase("furniture", definite=False), "some furniture"),
    ],
)
def test_noun_phrases(phrase, expected):
    assert grammar.noun_phrase(phrase) == expected


@pytest.mark.parametrize(
    ("changes", "passive", "expected"),
    [
        ({}, False, "the dogs saw an old owl near the river at noon ."),
        ({}, True, "an old owl was seen by the dogs near the river at noon ."),
        ({"negated": True}, False, "the dogs did not see an old owl near the river at noon ."),
        ({"negated": True}, True, "an old owl was not seen by the dogs near the river at noon ."),
        ({"aspect": "perfect"}, False, "the dogs have seen an old owl near the river at noon ."),
        ({"aspect": "perfect"}, True, "an old owl has been seen by the dogs near the river at noon ."),
        (
            {"aspect": "perfect", "negated": True},
            True,
            "an old owl has not been seen by the dogs near the river at noon .",
        ),
        ({"aspect": "future"}, False, "the dogs will see an old owl near the river at noon ."),
        (
            {"aspect": "future", "negated": True},
            True,
            "an old owl will not be seen by the dogs near the river at noon .",
        ),
        ({"adverb": "gladly"}, True, "an old owl was gladly seen by the dogs near the river at noon ."),
        ({"place": None, "patient": DOGS, "agent": TOM}, True, "the dogs were seen by tom at noon ."),
    ],
)
def test_statements(changes, passive, expected):
    assert grammar.statement(replace(SEE, **changes), passive) == expected


def test_the_time_can_come_first():
    assert grammar.statement(SEE, time_first=True) == "at noon the dogs saw an old owl near the river ."
    assert grammar.statement(replace(SEE, time=None), time_first=True) == "the dogs saw an old owl near the river ."


@pytest.mark.parametrize(
    ("changes", "passive", "expected"),
    [
        ({}, False, "did the dogs see an old owl near the river at noon ?"),
        ({}, True, "was an old owl seen by the dogs near the river at noon ?"),
        ({"aspect": "perfect"}, False, "have the dogs seen an old owl near the river at noon ?"),
        ({"aspect": "future"}, True, "will an old owl be seen by the dogs near the river at noon ?"),
    ],
)
def test_yes_no_questions(changes, passive, expected):
    assert grammar.yes_no_question(replace(SEE, **changes), passive) == expected


@pytest.mark.parametrize(
    ("about", "changes", "passive", "expected"),
    [
        ("agent", {}, False, "who saw an old owl ?"),
        ("agent", {}, True, "who was an old owl seen by ?"),
        ("agent", {"aspect": "perfect"}, False, "who has seen an old owl ?"),
        ("patient", {}, False, "who did the dogs see ?"),
        ("patient", {}, True, "who was seen by the dogs ?"),
        ("patient", {"patient": NounPhrase("axe", plural=True)}, True, "what was seen by the dogs ?"),
        ("patient", {"aspect": "future"}, False, "who will the dogs see ?"),
        ("place", {}, False, "where did the dogs see an old owl ?"),
        ("time", {}, True, "when was an old owl seen by the dogs ?"),
    ],
)
def test_questions_about_one_part(about, changes, passive, expected):
    assert grammar.who_question(replace(SEE, **changes), about, passive) == expected
