"""Skills about statements: span filling, question answering, rewriting, and comparing two statements.

Each skill is a function from a `World` to a (source, target) pair of texts. Two in five comparisons use the same words
and voice in both statements: matching is learned there first and then transfers to other words.
"""

from dataclasses import replace

from seq2seq.small_world import grammar, lexicon
from seq2seq.small_world.events import Event, NounPhrase, World
from seq2seq.small_world.opinions import against_expectation, consequence, opinion, saying

# The names of the respects of `World.changeable` in answers.
RESPECTS = {"agent": "doer", "verb": "deed", "patient": "target", "roles": "roles", "adjective": "look",
            "place": "place", "time": "time", "negation": "not"}  # fmt: skip


def passage(world: World) -> str:
    """Make two related sentences: an event stated twice, or an opinion and its consequence."""
    if world.chance(0.7):
        event = world.event()
        again = grammar.statement(world.reword(event, 0.5), passive=world.chance(0.5))
        sentences = [grammar.statement(event, passive=world.chance(0.3)), again]
    else:
        held = opinion(world)
        told = saying if world.chance(0.5) else against_expectation
        sentences = [told(world, held), consequence(world, held)]
    if world.chance(0.3):
        return f"sentence1: {sentences[0]} sentence2: {sentences[1]}"
    return f"sentence: {sentences[0]}" if world.chance(0.2) else " ".join(sentences)


def fill(world: World) -> tuple[str, str]:
    """T5's span filling (Raffel et al. 2020): up to three spans of one to three words are replaced by sentinels."""
    words = passage(world).split()
    starts = sorted(world.rng.sample(range(0, len(words) - 3, 4), world.rng.randint(1, min(3, len(words) // 4))))
    source, target, kept = [], [], 0
    for number, start in enumerate(starts):
        end = start + world.rng.randint(1, 3)
        source += [*words[kept:start], f"<extra_id_{number}>"]
        target += [f"<extra_id_{number}>", *words[start:end]]
        kept = end
    return " ".join(source + words[kept:]), " ".join([*target, f"<extra_id_{len(starts)}>"])


def who(world: World) -> tuple[str, str]:
    """Answer a question about one of one or two events; it may use other words and the other voice."""
    event = world.event()
    texts = [grammar.statement(event, passive=world.chance(0.4))]
    if world.chance(0.4):
        other = world.change(world.change(event, world.rng.choice(world.changeable(event))), "verb")
        texts.insert(world.rng.randrange(2), grammar.statement(other, passive=world.chance(0.4)))
    about = world.rng.choice(["agent", "patient", *(name for name in ("place", "time") if getattr(event, name))])
    asked = grammar.who_question(world.reword(event, 0.3), about, passive=world.chance(0.4))
    return f"{' '.join(texts)} {asked}", part(event, about)


def part(event: Event, respect: str) -> str:
    """Return the words for the agent, verb, patient, place or time of an event."""
    value = getattr(event, respect)
    return grammar.noun_phrase(value) if isinstance(value, NounPhrase) else value


def altered(world: World, event: Event) -> tuple[Event, str]:
    """Change the meaning of an event in one respect, and return the new event and the respect."""
    respect = world.rng.choice([*world.changeable(event), "negation"])
    return world.change(event, respect), respect


def said_again(world: World, event: Event) -> tuple[Event, float]:
    """Return the event, possibly reworded, and the probability that each of the two statements is passive."""
    return (event, 0.0) if world.chance(0.4) else (world.reword(event, 0.4), 0.5)


def is_it_so(world: World) -> tuple[str, str]:
    """Answer a yes/no question about a statement; a "no" names the respect that differs."""
    event, answer = world.event(), "yes"
    asked, passive = said_again(world, event)
    if world.chance(0.5):
        event, respect = altered(world, event)
        answer = f"no {RESPECTS[respect]}"
    question = grammar.yes_no_question(asked, passive=world.chance(passive))
    return f"{grammar.statement(event, passive=world.chance(passive))} {question}", answer


def what_changed(world: World) -> tuple[str, str]:
    """Name the one or two respects in which two statements differ, and their new values."""
    event = world.event(details=0.4)
    possible = [respect for respect in world.changeable(event) if respect not in ("roles", "adjective")]
    respects = sorted(world.rng.sample(possible, world.rng.choice((1, 1, 2))), key=possible.index)
    other = event
    for respect in respects:
        other = world.change(other, respect)
    other, passive = said_again(world, other)
    before = grammar.statement(event, passive=world.chance(passive))
    after = grammar.statement(other, passive=world.chance(passive))
    answer = " ".join(f"{RESPECTS[respect]} {part(other, respect)}" for respect in respects)
    return f"what changed ? before : {before} after : {after}", answer


def says_the_same(world: World) -> tuple[str, str]:
    """Find which of two statements has the same meaning as the first one."""
    event = world.event(details=0.2)
    again, passive = said_again(world, event)
    texts = [grammar.statement(meant, passive=world.chance(passive)) for meant in (again, altered(world, again)[0])]
    answer = world.rng.choice("ab")
    first, second = texts if answer == "a" else reversed(texts)
    return f"{grammar.statement(event)} which agrees ? a : {first} b : {second}", answer


def other_voice(world: World) -> tuple[str, str]:
    event, passive = world.event(), world.chance(0.5)
    return f"turn round : {grammar.statement(event, passive)}", grammar.statement(event, not passive)


def other_words(world: World) -> tuple[str, str]:
    """Replace each word that has a synonym."""
    event, passive = world.event(), world.chance(0.3)
    return f"other words : {grammar.statement(event, passive)}", grammar.statement(world.reword(event), passive)


def more_general(world: World) -> tuple[str, str]:
    """Replace each noun by its nearest kind: `a duck ate the pear` -> `a bird ate the fruit`."""

    def singular(phrase: NounPhrase) -> NounPhrase:
        return replace(phrase, plural=False)

    def general(phrase: NounPhrase) -> NounPhrase:
        return phrase if phrase.is_name else replace(phrase, noun=lexicon.KIND_OF[phrase.noun])

    event, passive = world.event(), world.chance(0.3)
    event = replace(event, agent=singular(event.agent), patient=singular(event.patient))
    wider = replace(event, agent=general(event.agent), patient=general(event.patient))
    return f"more general : {grammar.statement(event, passive)}", grammar.statement(wider, passive)


def shorter(world: World) -> tuple[str, str]:
    """Drop adjectives, place, time and adverb."""
    event, passive = world.event(details=0.6), world.chance(0.4)
    agent, patient = (replace(phrase, adjective=None) for phrase in (event.agent, event.patient))
    bare = Event(agent, event.verb, patient, aspect=event.aspect)
    return f"in short : {grammar.statement(event, passive)}", grammar.statement(bare, passive)


def unscramble(world: World) -> tuple[str, str]:
    """Restore the order of shuffled words; the patient is a thing, so that only one order makes sense."""
    event = world.event(patients=(*lexicon.OBJECTS, "food"), details=0.15)
    text = grammar.statement(replace(event, adverb=None))
    words = text.removesuffix(" .").split()
    return f"put in order : {' '.join(world.rng.sample(words, len(words)))}", text


def what_first(world: World) -> tuple[str, str]:
    """Find which of two events, joined by before or after, came first."""
    main, other = (grammar.statement(world.event(details=0.1)).removesuffix(" .") for _ in range(2))
    joint = world.rng.choice(("before", "after"))
    text = f"{main} {joint} {other} ." if world.chance(0.5) else f"{joint} {other} , {main} ."
    return f"{text} what came first ?", main if joint == "before" else other
