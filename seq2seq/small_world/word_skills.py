"""Skills about words and numbers: synonyms, opposites, the taxonomy, matching, counting.

Each skill is a function from a `World` to a (source, target) pair of texts.
"""

from seq2seq.small_world import lexicon
from seq2seq.small_world.events import World

KINDS_APART = tuple(kind for kind in lexicon.TAXONOMY if kind not in lexicon.KIND_OF)
"""Kinds that are not part of another kind."""


def synonym(world: World) -> tuple[str, str]:
    word = world.rng.choice(list(lexicon.SYNONYMS))
    return f"another word for {word} ?", lexicon.SYNONYMS[word]


def opposite(world: World) -> tuple[str, str]:
    word = world.rng.choice(list(lexicon.OPPOSITES))
    return f"the opposite of {word} ?", lexicon.OPPOSITES[word]


def kind(world: World) -> tuple[str, str]:
    """`what kind of thing is a duck ?` -> `bird`, and yes/no questions up and down the taxonomy."""
    noun = world.rng.choice(list(lexicon.KIND_OF))
    above = lexicon.kinds_above(noun)
    if world.chance(0.5):
        return f"what kind of thing is {lexicon.with_article(noun)} ?", above[0]
    if world.chance(0.5):
        return f"is {lexicon.with_article(noun)} {lexicon.with_article(world.rng.choice(above))} ?", "yes"
    wrong = world.rng.choice([kind for kind in lexicon.TAXONOMY if kind not in above and kind != noun])
    return f"is {lexicon.with_article(noun)} {lexicon.with_article(wrong)} ?", "no"


def odd_one_out(world: World) -> tuple[str, str]:
    """Find the one of four things that is of another kind."""
    common, strange = world.rng.sample(KINDS_APART, 2)
    odd = world.rng.choice(lexicon.members_of(strange))
    words = world.rng.sample([*world.rng.sample(lexicon.members_of(common), 3), odd], 4)
    return f"which does not belong : {' '.join(words)} ?", odd


def matching_word(world: World) -> tuple[str, str]:
    """Find the one of four words that is the given word or its synonym."""
    word = world.rng.choice(list(lexicon.SYNONYMS))
    same = lexicon.SYNONYMS[word] if world.chance(0.5) else word
    words = [same]
    while len(words) < 4:
        words.append(world.other(list(lexicon.SYNONYMS), *words))
    return f"which means {word} : {' '.join(world.rng.sample(words, 4))} ?", same


def new_word(world: World) -> tuple[str, str]:
    """Find the word that is only in the second of two lists, which are in different orders."""
    new, *before = world.rng.sample(list(lexicon.KIND_OF), world.rng.randint(3, 6))
    after = world.rng.sample([*before[1:], new], len(before))
    return f"before : {' '.join(before)} after : {' '.join(after)} which is new ?", new


def how_many(world: World) -> tuple[str, str]:
    """Count the members of a kind in a list."""
    wanted, rest = world.rng.sample(KINDS_APART, 2)
    count = world.rng.randrange(5)
    members = world.rng.sample(lexicon.members_of(wanted), count)
    others = world.rng.sample(lexicon.members_of(rest), world.rng.randint(1, 2))
    words = world.rng.sample(members + others, len(members + others))
    return f"how many of kind {wanted} : {' '.join(words)} ?", lexicon.NUMBER_WORDS[count]


def measure(world: World) -> tuple[str, str]:
    """Read and compare numbers with one decimal: who has how much, who has more or less."""
    people = world.rng.sample(lexicon.PEOPLE, 2)
    amounts = world.rng.sample([f"{tenths / 10:.1f}" for tenths in range(0, 51, 2)], 2)
    text = f"{people[0]} has {amounts[0]} and {people[1]} has {amounts[1]} ."
    if world.chance(0.5):
        asked = world.rng.randrange(2)
        return f"{text} how much has {people[asked]} ?", amounts[asked]
    most = world.chance(0.5)
    chosen = (max if most else min)(range(2), key=lambda i: float(amounts[i]))
    return f"{text} who has {'more' if most else 'less'} ?", people[chosen]
