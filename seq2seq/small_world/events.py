"""Events of the small world: an agent does something to a patient, at a place and a time.

An `Event` is a meaning, not a sentence; `grammar.py` renders it in English. `World.reword` substitutes synonyms, which
preserves the meaning; `World.change` changes the meaning in exactly one respect.
"""

import random
import zlib
from dataclasses import dataclass, replace

from seq2seq.small_world import lexicon

ASPECTS = ("past", "perfect", "future")


@dataclass(frozen=True)
class NounPhrase:
    """`tom`, `the old farmer`, `a dog`, `the horses`: a name has no article, adjective or plural."""

    noun: str
    adjective: str | None = None
    plural: bool = False
    definite: bool = True

    @property
    def is_name(self) -> bool:
        return self.noun in lexicon.PEOPLE

    @property
    def is_animate(self) -> bool:
        return self.is_name or bool({"person", "animal"} & set(lexicon.kinds_above(self.noun)))


@dataclass(frozen=True)
class Event:
    agent: NounPhrase
    verb: str
    patient: NounPhrase
    place: str | None = None
    time: str | None = None
    adverb: str | None = None
    aspect: str = "past"
    negated: bool = False


def meaning(word: str) -> str:
    """Return the same representative for a word and its synonym."""
    return min(word, lexicon.SYNONYMS.get(word, word))


def same_phrase(first: NounPhrase, second: NounPhrase) -> bool:
    return meaning(first.noun) == meaning(second.noun) and first.plural == second.plural


def is_held_out(event: Event) -> bool:
    """Whether an event is held out: one (agent, verb, patient) in sixteen, by a hash, occurs in no pretraining item."""
    triple = " ".join(meaning(word) for word in (event.agent.noun, event.verb, event.patient.noun))
    return zlib.crc32(triple.encode()) % 16 == 0


class World:
    """A seeded source of events; `held_out` selects the held-out ones or the others (see `is_held_out`)."""

    def __init__(self, seed: int, held_out: bool = False):
        self.rng = random.Random(seed)
        self.held_out = held_out

    def chance(self, probability: float) -> bool:
        return self.rng.random() < probability

    def other(self, words, *than: str) -> str:
        """Draw a word that is neither one of `than` nor a synonym of one."""
        taken = {meaning(word) for word in than}
        return self.rng.choice([word for word in words if meaning(word) not in taken])

    def adjective_for(self, noun: str, *than: str) -> str:
        kinds = lexicon.kinds_above(noun)
        animate = "person" in kinds or "animal" in kinds
        words = lexicon.BEING_ADJECTIVES if animate else lexicon.THING_ADJECTIVES + lexicon.COLOURS
        return self.other(words, *than)

    def phrase(self, kinds: tuple[str, ...], *than: str, details: float = 0.25) -> NounPhrase:
        """Draw a noun phrase for something of one of the kinds; people are sometimes named."""
        kind = self.rng.choice(kinds)
        if kind == "person" and self.chance(0.5):
            return NounPhrase(self.other(lexicon.PEOPLE, *than))
        noun = self.other(lexicon.members_of(kind), *than)
        adjective = self.adjective_for(noun) if self.chance(details) else None
        return NounPhrase(noun, adjective, plural=self.chance(0.25), definite=self.chance(0.8))

    def event(self, *, patients: tuple[str, ...] | None = None, details: float = 0.25) -> Event:
        """Draw an event; `patients` restricts the kinds of the patient, `details` is the share of optional parts."""
        while True:
            verb = self.rng.choice(list(lexicon.VERBS.values()))
            kinds = verb.patients if patients is None else tuple(k for k in verb.patients if k in patients)
            if not kinds:
                continue
            agents = ("person", "animal") if set(lexicon.ANIMATE) <= set(verb.patients) else ("person",)
            agent = self.phrase(agents, details=details)
            patient = self.phrase(kinds, agent.noun, details=details)
            aspect = self.rng.choices(ASPECTS, (8, 1, 1))[0]
            event = Event(
                agent,
                verb.base,
                patient,
                place=self.rng.choice(lexicon.PLACES) if self.chance(details) else None,
                time=self.rng.choice(lexicon.TIMES) if aspect == "past" and self.chance(details) else None,
                adverb=self.rng.choice(lexicon.ADVERBS) if self.chance(details / 3) else None,
                aspect=aspect,
            )
            if is_held_out(event) == self.held_out:
                return event

    def reword(self, event: Event, probability: float = 1.0) -> Event:
        """Replace words of the event by synonyms, each with the given probability."""

        def word(text: str | None) -> str | None:
            return lexicon.SYNONYMS.get(text, text) if text and self.chance(probability) else text

        def phrase(given: NounPhrase) -> NounPhrase:
            return replace(given, noun=word(given.noun), adjective=word(given.adjective))

        return replace(event, agent=phrase(event.agent), verb=word(event.verb), patient=phrase(event.patient))

    def changeable(self, event: Event) -> list[str]:
        """Return the respects in which `change` can change the event."""
        respects = ["agent", "verb", "patient"]
        if (
            event.patient.is_animate
            and "person" in lexicon.VERBS[event.verb].patients
            and not same_phrase(event.agent, event.patient)
        ):
            respects.append("roles")
        respects += ["adjective"] * any(phrase.adjective for phrase in (event.agent, event.patient))
        respects += [name for name in ("place", "time") if getattr(event, name)]
        return respects

    def change(self, event: Event, respect: str) -> Event:
        """Change the event in one respect: one of `changeable`, or `negation`."""
        if respect == "negation":
            return replace(event, negated=not event.negated)
        if respect == "roles":
            return replace(event, agent=event.patient, patient=event.agent)
        if respect == "verb":
            return replace(event, verb=self._other_verb(event))
        if respect == "adjective":
            role = self.rng.choice([r for r in ("agent", "patient") if getattr(event, r).adjective])
            phrase = getattr(event, role)
            opposite = lexicon.OPPOSITES.get(phrase.adjective)
            new = opposite if opposite and self.chance(0.5) else self.adjective_for(phrase.noun, phrase.adjective)
            return replace(event, **{role: replace(phrase, adjective=new)})
        if respect in ("agent", "patient"):
            return replace(event, **{respect: self._other_phrase(event, respect)})
        words = lexicon.PLACES if respect == "place" else lexicon.TIMES
        return replace(event, **{respect: self.other(words, getattr(event, respect))})

    def _other_verb(self, event: Event) -> str:
        opposite = lexicon.OPPOSITES.get(event.verb)
        if opposite and self.chance(0.4):
            return opposite
        allowed = set(lexicon.VERBS[event.verb].patients)
        return self.other([verb.base for verb in lexicon.VERBS.values() if allowed <= set(verb.patients)], event.verb)

    def _other_phrase(self, event: Event, role: str) -> NounPhrase:
        phrase = getattr(event, role)
        taken = (event.agent.noun, event.patient.noun)
        if phrase.is_name:
            return NounPhrase(self.other(lexicon.PEOPLE, *taken))
        siblings = lexicon.members_of(lexicon.kinds_above(phrase.noun)[-1])
        return replace(phrase, noun=self.other(siblings, *taken))
