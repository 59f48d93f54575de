"""The grammar of the small world: events rendered as statements and questions.

Everything is lower case, and words and punctuation are separated by spaces.
"""

from seq2seq.small_world import lexicon
from seq2seq.small_world.events import Event, NounPhrase


def noun_phrase(phrase: NounPhrase) -> str:
    if phrase.is_name:
        return phrase.noun
    words = ([phrase.adjective] if phrase.adjective else []) + [
        lexicon.plural(phrase.noun) if phrase.plural else phrase.noun
    ]
    if phrase.definite:
        return " ".join(["the", *words])
    if phrase.plural or phrase.noun in lexicon.MASS_KINDS:
        return " ".join(["some", *words])
    return lexicon.with_article(" ".join(words))


def auxiliaries(event: Event, passive: bool) -> list[str]:
    """Return the auxiliaries, e.g. [did] or [will, be]: `not` follows the first, and questions begin with it."""
    plural = (event.patient if passive else event.agent).plural
    if event.aspect == "perfect":
        return ["have" if plural else "has", *["been"] * passive]
    if event.aspect == "future":
        return ["will", *["be"] * passive]
    if passive:
        return ["were" if plural else "was"]
    return ["did"] if event.negated else []


def main_verb(event: Event, passive: bool, after_did: bool) -> str:
    verb = lexicon.VERBS[event.verb]
    if passive or event.aspect == "perfect":
        return verb.participle
    if event.aspect == "future" or after_did:
        return verb.base
    return verb.past


def _circumstances(event: Event) -> list[str]:
    return [part for part in (event.place, event.time) if part]


def statement(event: Event, passive: bool = False, time_first: bool = False) -> str:
    """`the dog chased the cat near the river .` or, passive, `the cat was chased by the dog near the river .`"""
    subject, other = (event.patient, event.agent) if passive else (event.agent, event.patient)
    helpers = auxiliaries(event, passive)
    words = [noun_phrase(subject)]
    words += helpers[:1] + ["not"] * event.negated + helpers[1:]
    words += [event.adverb] if event.adverb else []
    words += [main_verb(event, passive, after_did="did" in helpers)]
    words += ["by"] * passive + [noun_phrase(other)]
    circumstances = _circumstances(event)
    if time_first and event.time:
        words, circumstances = [event.time, *words], circumstances[:-1]
    return " ".join([*words, *circumstances, "."])


def yes_no_question(event: Event, passive: bool = False) -> str:
    """`did the dog chase the cat ?`, `was the cat chased by the dog ?`"""
    subject, other = (event.patient, event.agent) if passive else (event.agent, event.patient)
    helpers = auxiliaries(event, passive) or ["did"]
    words = [helpers[0], noun_phrase(subject), *helpers[1:], main_verb(event, passive, after_did="did" in helpers)]
    return " ".join([*words, *["by"] * passive, noun_phrase(other), *_circumstances(event), "?"])


def who_question(event: Event, about: str, passive: bool = False) -> str:
    """Ask for the `agent`, the `patient`, the `place` or the `time`."""
    if about in ("place", "time"):
        bare = Event(event.agent, event.verb, event.patient, aspect=event.aspect)
        return ("where " if about == "place" else "when ") + yes_no_question(bare, passive)
    asked, other = (event.agent, event.patient) if about == "agent" else (event.patient, event.agent)
    word = "who" if asked.is_animate else "what"
    about_subject = (about == "agent") != passive
    helpers = auxiliaries(event, passive)
    if about_subject:
        # The interrogative is the subject and is singular: who was chased by the dog?
        helpers = [{"were": "was", "have": "has"}.get(helper, helper) for helper in helpers]
        words = [word, *helpers, main_verb(event, passive, after_did=False), *["by"] * passive, noun_phrase(other)]
    else:
        helpers = helpers or ["did"]
        words = [word, helpers[0], noun_phrase(other), *helpers[1:]]
        words += [main_verb(event, passive, after_did="did" in helpers), *["by"] * passive]
    return " ".join([*words, "?"])
