"""The polarity of opinions, checked by counting negations and words of praise and blame."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seq2seq.small_world import lexicon
from seq2seq.small_world.events import World
from seq2seq.small_world.opinions import against_expectation, attitude, consequence, opinion, quality, saying
from tests.seq2seq.small_world import readings

SEEDS = st.integers(0, 10**9)


@pytest.mark.parametrize("favourable", [True, False])
@pytest.mark.parametrize("say", [quality, attitude])
@given(SEEDS)
def test_a_phrase_has_the_requested_polarity(say, favourable, seed):
    assert readings.favourable(say(World(seed), favourable)) == favourable


@given(SEEDS)
def test_a_statement_expresses_the_opinion(seed):
    world = World(seed)
    held = opinion(world)
    text = saying(world, held)
    assert readings.favourable(text) == held.favourable
    assert {held.person, held.thing} < set(text.split())


@given(SEEDS)
def test_the_outcome_counts_rather_than_the_expectation(seed):
    world = World(seed)
    held = opinion(world)
    text = against_expectation(world, held)
    if "because" in text:
        assert {readings.favourable(half) for half in text.split("because")} == {held.favourable}
    else:
        expected, found = re.split(" , " if text.startswith("although") else "(?<!anything) but ", text)
        assert readings.favourable(found) == held.favourable != readings.favourable(expected)


@pytest.mark.parametrize(
    ("favourable", "signs"),
    [(True, {"happy", "glad", "smiled", "try"}), (False, {"sad", "unhappy", "frowned", "avoid"})],
)
@given(SEEDS)
def test_consequences_match_the_opinion(favourable, signs, seed):
    world = World(seed)
    held = opinion(world)
    held = type(held)(held.person, held.thing, favourable)
    assert set(consequence(world, held).split()) & signs


@given(SEEDS)
def test_excluded_people_and_things_are_not_drawn(seed):
    world = World(seed)
    first = opinion(world)
    second = opinion(world, first.person, first.thing)
    assert second.person != first.person
    assert second.thing not in (first.thing, lexicon.SYNONYMS.get(first.thing))
