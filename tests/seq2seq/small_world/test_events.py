"""Properties of events, rewording and changes, over random seeds."""

from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seq2seq.small_world import lexicon
from seq2seq.small_world.events import Event, NounPhrase, World, is_held_out, meaning

SEEDS = st.integers(0, 10**9)


def parts(event: Event) -> dict[str, object]:
    """The parts of an event up to synonyms, including the parts of its noun phrases."""
    found = {}
    for field in fields(Event):
        value = getattr(event, field.name)
        if isinstance(value, NounPhrase):
            found[f"{field.name} noun"] = meaning(value.noun)
            found[f"{field.name} adjective"] = value.adjective and meaning(value.adjective)
            found[f"{field.name} form"] = (value.plural, value.definite)
        else:
            found[field.name] = meaning(value) if isinstance(value, str) else value
    return found


def differences(first: Event, second: Event) -> set[str]:
    ours, theirs = parts(first), parts(second)
    return {name for name in ours if ours[name] != theirs[name]}


@given(SEEDS)
def test_equal_seeds_give_equal_events(seed):
    assert World(seed).event() == World(seed).event()


@pytest.mark.parametrize("held_out", [False, True])
@given(SEEDS)
def test_held_out_events_are_drawn_only_on_request(held_out, seed):
    assert is_held_out(World(seed, held_out).event()) == held_out


def test_about_one_event_in_sixteen_is_held_out():
    people = [NounPhrase(noun) for noun in lexicon.PEOPLE]
    events = [Event(a, verb, b) for a in people for b in people for verb in ("chase", "help", "see")]
    assert 1 / 24 < sum(map(is_held_out, events)) / len(events) < 1 / 12


@given(SEEDS)
def test_rewording_preserves_whether_an_event_is_held_out(seed):
    world = World(seed)
    event = world.event()
    assert is_held_out(world.reword(event)) == is_held_out(event)


@given(SEEDS)
def test_rewording_preserves_meaning_and_is_its_own_inverse(seed):
    world = World(seed)
    event = world.event(details=0.8)
    assert differences(event, world.reword(event)) == set()
    assert world.reword(world.reword(event)) == event


def test_rewording_replaces_words():
    event = Event(NounPhrase("doctor", adjective="big"), "help", NounPhrase("dog"))
    expected = Event(NounPhrase("physician", adjective="large"), "assist", NounPhrase("hound"))
    assert World(0).reword(event) == expected


ALTERS = {
    "agent": {"agent noun"}, "patient": {"patient noun"}, "verb": {"verb"}, "place": {"place"}, "time": {"time"},
    "negation": {"negated"},
}  # fmt: skip


@given(SEEDS)
def test_a_change_affects_only_the_named_respect(seed):
    world = World(seed)
    event = world.event(details=0.7)
    for respect in [*world.changeable(event), "negation"]:
        altered = differences(event, world.change(event, respect))
        if respect == "roles":
            changed = world.change(event, respect)
            assert (changed.agent, changed.patient) == (event.patient, event.agent)
            assert altered
        elif respect == "adjective":
            assert altered in ({"agent adjective"}, {"patient adjective"})
        else:
            assert altered == ALTERS[respect]


@given(SEEDS)
def test_agent_and_patient_differ_in_meaning(seed):
    event = World(seed).event()
    assert meaning(event.agent.noun) != meaning(event.patient.noun)
    kinds = lexicon.VERBS[event.verb].patients
    assert event.patient.is_name or set(lexicon.kinds_above(event.patient.noun)) & set(kinds)
