"""Sentences with one grammatical error, and the skill of correcting them."""

from dataclasses import replace

from seq2seq.small_world import grammar, lexicon
from seq2seq.small_world.events import World

SWAPS = {"was": "were", "were": "was", "has": "have", "have": "has", "himself": "herself", "herself": "himself",
         "a": "an", "an": "a"}  # fmt: skip
LOSABLE = ("by", "the", "a", "an", "was", "were", "been", "be")
VERB_FORMS: dict[str, tuple[str, ...]] = {}
for _verb in lexicon.VERBS.values():
    for _form in (_verb.base, _verb.past, _verb.participle):
        VERB_FORMS.setdefault(_form, tuple(dict.fromkeys((_verb.base, _verb.past, _verb.participle))))


def mend(world: World) -> tuple[str, str]:
    """Correct a sentence, which in three of four cases has an error."""
    text = sound_sentence(world)
    return f"mend : {text if world.chance(0.25) else broken(world, text)}", text


def sound_sentence(world: World) -> str:
    """Make a correct sentence: a statement in any aspect and voice, or one with a reflexive pronoun."""
    if world.chance(0.25):
        person = world.rng.choice(lexicon.PEOPLE)
        verb = lexicon.VERBS[world.rng.choice(lexicon.REFLEXIVE_VERBS)]
        own = "himself" if person in lexicon.MEN else "herself"
        return f"{person} {verb.past} {own} {world.rng.choice(lexicon.PLACES)} ."
    event = world.event()
    if world.chance(0.4):
        event = replace(event, aspect=world.rng.choice(("perfect", "future")), time=None)
    return grammar.statement(event, passive=world.chance(0.5))


def broken(world: World, text: str) -> str:
    """Introduce one error: a wrong form, a missing word, or two words out of order."""
    words = text.split()
    swappable = [at for at, word in enumerate(words) if word in SWAPS]
    losable = [at for at, word in enumerate(words) if word in LOSABLE]
    verb = next(at for at, word in enumerate(words) if word in VERB_FORMS)
    if swappable and world.chance(0.6):
        at = world.rng.choice(swappable)
        words[at] = SWAPS[words[at]]
    elif world.chance(0.5):
        words[verb] = world.other(VERB_FORMS[words[verb]], words[verb])
    elif losable and world.chance(0.5):
        del words[world.rng.choice(losable)]
    else:
        at = world.rng.randrange(len(words) - 2)
        words[at], words[at + 1] = words[at + 1], words[at]
    return " ".join(words)
