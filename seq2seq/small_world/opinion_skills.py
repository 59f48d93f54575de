"""Skills about opinions: which words express praise or blame, and what follows from liking or disliking.

Each skill is a function from a `World` to a (source, target) pair of texts.
"""

from dataclasses import replace

from seq2seq.small_world import lexicon
from seq2seq.small_world.events import World
from seq2seq.small_world.opinions import attitude, consequence, opinion, quality, saying


def praise_or_blame(world: World) -> tuple[str, str]:
    praise = world.chance(0.5)
    return f"does {quality(world, praise)} praise or blame ?", "praise" if praise else "blame"


def feeling(world: World) -> tuple[str, str]:
    """`tom never hated the film . how did tom feel ?` -> `happy`, and other questions that an opinion answers."""
    held = opinion(world)
    told, person = saying(world, held), held.person
    match world.rng.randrange(4):
        case 0:
            return f"{told} how did {person} feel ?", "happy" if held.favourable else "sad"
        case 1:
            return f"{told} will {person} come again ?", "yes" if held.favourable else "no"
        case 2:
            return f"{consequence(world, held)} what did {person} say ?", "praise" if held.favourable else "blame"
    asked = world.chance(0.5)
    verb = world.rng.choice(lexicon.LIKING if asked else lexicon.DISLIKING)
    return f"{told} did {person} {verb} it ?", "yes" if asked == held.favourable else "no"


def who_was_pleased(world: World) -> tuple[str, str]:
    """Two opinions on the same thing, which may differ."""
    first = opinion(world)
    second = replace(opinion(world, first.person), thing=first.thing)
    joint = "and" if first.favourable == second.favourable else "but"
    told = f"{saying(world, first).removesuffix(' .')} {joint}"
    told = f"{told} {second.person} {attitude(world, second.favourable)} it ."
    pleased = [held.person for held in (first, second) if held.favourable]
    return f"{told} who was pleased ?", pleased[0] if len(pleased) == 1 else "both" if pleased else "nobody"
