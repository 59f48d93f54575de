"""Opinions in the small world, expressed by praise or blame, liking or disliking, directly or by negation.

Opinions are binary: not liking a thing means disliking it, and far from dull means exciting.
"""

from dataclasses import dataclass

from seq2seq.small_world import lexicon
from seq2seq.small_world.events import World


@dataclass(frozen=True)
class Opinion:
    person: str
    thing: str
    favourable: bool


def opinion(world: World, *than: str) -> Opinion:
    """Draw an opinion of a person on a show; `than` are people and shows to exclude."""
    return Opinion(world.other(lexicon.PEOPLE, *than), world.other(lexicon.SHOWS, *than), world.chance(0.5))


def quality(world: World, favourable: bool) -> str:
    """`superb`, `not dull`, `anything but superb`: a word of praise or blame, possibly negated."""
    if world.chance(0.5):
        denial = world.rng.choice(lexicon.DENIALS)
        return f"{denial} {world.rng.choice(lexicon.BLAME if favourable else lexicon.PRAISE)}"
    return world.rng.choice(lexicon.PRAISE if favourable else lexicon.BLAME)


def attitude(world: World, favourable: bool) -> str:
    """`liked`, `did not hate`, `never enjoyed`: a verb of liking or disliking, possibly negated."""
    if world.chance(0.5):
        verb = world.rng.choice(lexicon.DISLIKING if favourable else lexicon.LIKING)
        return f"did not {verb}" if world.chance(0.5) else f"never {verb}{'d' if verb.endswith('e') else 'ed'}"
    verb = world.rng.choice(lexicon.LIKING if favourable else lexicon.DISLIKING)
    return verb + ("d" if verb.endswith("e") else "ed")


def saying(world: World, given: Opinion) -> str:
    """State the opinion in one sentence."""
    person, thing = given.person, f"the {given.thing}"
    form = world.rng.randrange(3)
    if form == 0:
        return f"{person} {attitude(world, given.favourable)} {thing} ."
    if form == 1:
        return f"{person} thought {thing} was {quality(world, given.favourable)} ."
    return f"{thing} was {quality(world, given.favourable)} for {person} ."


def against_expectation(world: World, given: Opinion) -> str:
    """State the opinion in one sentence, usually against an opposite expectation."""
    person, thing = given.person, f"the {given.thing}"
    expected, found = quality(world, not given.favourable), quality(world, given.favourable)
    forms = (
        f"{person} expected {thing} to be {expected} but it was {found} .",
        f"everyone said {thing} was {expected} but {person} {attitude(world, given.favourable)} it .",
        f"although everyone said it was {expected} , {person} thought {thing} was {found} .",
        f"{person} {attitude(world, given.favourable)} {thing} because it was {found} .",
    )
    return world.rng.choice(forms)


def consequence(world: World, given: Opinion) -> str:
    """Describe a consequence of the opinion without stating it."""
    person, thing = given.person, f"the {given.thing}"
    after = (
        f"so {person} was {world.rng.choice(('happy', 'glad'))} .",
        f"{person} smiled and asked for more .",
        f"{person} told everyone to try {thing} .",
    ) if given.favourable else (
        f"so {person} was {world.rng.choice(('sad', 'unhappy'))} .",
        f"{person} frowned and went home .",
        f"{person} told everyone to avoid {thing} .",
    )  # fmt: skip
    return world.rng.choice(after)
