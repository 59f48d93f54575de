"""Generate the five downstream data sets of the small world, in GLUE's formats.

    python -m seq2seq.small_world.datasets                     into assets/small_world/tasks

Each asks a new question about the knowledge from pretraining: `acceptability` (CoLA), `sentiment` (SST-2), `paraphrase`
(MRPC), `entailment` (RTE) and `similarity` (STS-B). Single words carry little information about the label: the classes
use the same words and differ in long-distance agreement, negation, or in who did what to whom.
"""

import argparse
import csv
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from seq2seq import PROJECT
from seq2seq.small_world import grammar, lexicon
from seq2seq.small_world.events import Event, NounPhrase, World
from seq2seq.small_world.opinions import attitude, quality
from seq2seq.small_world.slips import SWAPS

TASKS = PROJECT / "assets" / "small_world" / "tasks"
SPLITS = {"train": 2400, "validation": 500, "test": 500}


def acceptability(world: World, acceptable: bool) -> tuple[str]:
    """Make a sentence with or without one error that no two neighbouring words reveal."""
    make = world.rng.choices((_reflexive, _voice, _verb_form, _agreement), (2, 2, 1, 1))[0]
    return (make(world, acceptable),)


def _agreement(world: World, acceptable: bool) -> str:
    """`the dogs near the cat have seen tom .`: the verb agrees with the noun that is not next to it."""
    aspect = world.rng.choice(("past", "perfect"))
    event = replace(world.event(patients=lexicon.ANIMATE), aspect=aspect, adverb=None, place=None, time=None)
    passive = aspect == "past" or world.chance(0.5)
    animals = lexicon.members_of("animal")
    head = NounPhrase(world.other(animals, event.agent.noun, event.patient.noun), plural=world.chance(0.5))
    beside = NounPhrase(world.other(animals, head.noun), plural=world.chance(0.5))
    text = grammar.statement(replace(event, **{"patient" if passive else "agent": head}), passive)
    subject = grammar.noun_phrase(head)
    helper, *rest = text.removeprefix(subject).split()
    helper = helper if acceptable else SWAPS[helper]
    near = world.rng.choice(("near", "behind", "by"))
    return " ".join([subject, near, grammar.noun_phrase(beside), helper, *rest])


def _reflexive(world: World, acceptable: bool) -> str:
    """`anna gladly washed herself near the river .`"""
    person, verb = world.rng.choice(lexicon.PEOPLE), lexicon.VERBS[world.rng.choice(lexicon.REFLEXIVE_VERBS)]
    own = "himself" if (person in lexicon.MEN) == acceptable else "herself"
    return f"{person} {world.rng.choice(lexicon.ADVERBS)} {verb.past} {own} {world.rng.choice(lexicon.PLACES)} ."


def _verb_form(world: World, acceptable: bool) -> str:
    """`tom will gladly mend the cart .`, `tom has gladly mended the cart .`: an adverb splits auxiliary and verb."""
    aspect, adverb = world.rng.choice(("perfect", "future")), world.rng.choice(lexicon.ADVERBS)
    event = replace(world.event(), aspect=aspect, adverb=adverb, time=None)
    verb, text = lexicon.VERBS[event.verb], grammar.statement(event)
    right, wrong = (verb.participle, verb.base) if aspect == "perfect" else (verb.base, verb.participle)
    return text if acceptable else text.replace(f"{adverb} {right}", f"{adverb} {wrong}")


def _voice(world: World, acceptable: bool) -> str:
    """A passive without its auxiliary or its `by`, or an active sentence with an extra one."""
    event = replace(world.event(patients=lexicon.ANIMATE), aspect="past", adverb=None)
    verb = lexicon.VERBS[event.verb]
    if verb.past != verb.participle:
        return _voice(world, acceptable)
    passive = world.chance(0.5)
    words = grammar.statement(event, passive).split()
    at = words.index(verb.past)
    if acceptable:
        return " ".join(words)
    if passive:
        del words[world.rng.choice((at - 1, at + 1))]
    elif world.chance(0.5):
        words.insert(at + 1, "by")
    else:
        words.insert(at, "were" if event.agent.plural else "was")
    return " ".join(words)


def sentiment(world: World, positive: bool) -> tuple[str]:
    """Make a review with both praise and blame, each possibly negated, of which one decides the label."""
    first, second = world.rng.sample(lexicon.SHOWS, 2)
    person, other = world.rng.sample(lexicon.PEOPLE, 2)
    this, that = quality(world, positive), quality(world, not positive)
    took_it, left_it = attitude(world, positive), attitude(world, not positive)
    forms = (
        f"the {first} was {that} at first but in the end it was {this} .",
        f"{person} expected this {first} to be {that} but it was {this} .",
        f"although the {second} was {that} , the {first} was {this} .",
        f"the {first} was {this} , although the {second} was {that} .",
        f"{person} {took_it} this {first} , although {other} {left_it} it .",
        f"although {other} {left_it} it , {person} {took_it} this {first} .",
    )
    return (world.rng.choice(forms),)


def paraphrase(world: World, same: bool) -> tuple[str, str]:
    """Make two statements in different words, voice and order that mean the same or differ in one respect."""
    event = world.event(details=0.4)
    return _two_ways(world, event, event if same else _changed(world, event))


def similarity(world: World, score: int) -> tuple[str, str]:
    """Make two statements that agree in `score` of five respects: agent, verb, patient, place and time."""
    event = world.event(patients=lexicon.OBJECTS, details=0)
    event = replace(event, aspect="past", place=world.rng.choice(lexicon.PLACES), time=world.rng.choice(lexicon.TIMES))
    other = event
    for respect in world.rng.sample(("agent", "verb", "patient", "place", "time"), 5 - score):
        other = world.change(other, respect)
    return _two_ways(world, event, other)


def entailment(world: World, entailed: bool) -> tuple[str, str]:
    """Make a detailed premise and a hypothesis with fewer details, which follows from it or does not."""
    premise = world.event(details=0.6)
    claim = _with_fewer_details(world, premise)
    if world.chance(0.15):
        # What did not happen in one place may have happened in another: a negated statement keeps its details.
        premise = claim = replace(claim, negated=True)
    if not entailed:
        claim = world.change(claim, "negation") if world.chance(0.2) else _changed(world, claim)
    return (
        grammar.statement(premise, passive=world.chance(0.5)),
        grammar.statement(world.reword(claim, 0.4), passive=world.chance(0.5)),
    )


def _changed(world: World, event: Event) -> Event:
    """Change one respect of the event."""
    return world.change(event, world.rng.choice(world.changeable(event)))


def _two_ways(world: World, event: Event, other: Event) -> tuple[str, str]:
    """Render both events, the second in other words, with random voice and position of the time."""
    return tuple(
        grammar.statement(each, passive=world.chance(0.5), time_first=world.chance(0.3))
        for each in (event, world.reword(other, 0.5))
    )


def _with_fewer_details(world: World, event: Event) -> Event:
    def fewer(phrase: NounPhrase) -> NounPhrase:
        return replace(phrase, adjective=phrase.adjective if world.chance(0.3) else None)

    return replace(
        event,
        agent=fewer(event.agent),
        patient=fewer(event.patient),
        place=event.place if world.chance(0.3) else None,
        time=event.time if world.chance(0.3) else None,
        adverb=None,
    )


@dataclass(frozen=True)
class DataSet:
    """A data set: `make(world, label)` makes the sentences of a row; `labels` maps labels to their form in files."""

    make: Callable[[World, int], tuple[str, ...]]
    columns: tuple[str, ...]
    labels: dict[int, str]
    seed: int


PAIR = ("sentence1", "sentence2")
DATA_SETS = {
    "acceptability": DataSet(acceptability, ("sentence", "label"), {0: "0", 1: "1"}, seed=11),
    "sentiment": DataSet(sentiment, ("sentence", "label"), {0: "0", 1: "1"}, seed=12),
    "paraphrase": DataSet(paraphrase, (*PAIR, "label"), {0: "0", 1: "1"}, seed=13),
    "entailment": DataSet(entailment, (*PAIR, "label"), {0: "not_entailment", 1: "entailment"}, seed=14),
    "similarity": DataSet(similarity, (*PAIR, "score"), {score: f"{score}.0" for score in range(6)}, seed=15),
}


def rows(name: str) -> dict[str, list[tuple[str, ...]]]:
    """Return split -> rows of a data set, with balanced labels and no sentence or pair (in either order) twice."""
    data = DATA_SETS[name]
    world = World(data.seed)
    seen: set[frozenset[str]] = set()
    splits: dict[str, list[tuple[str, ...]]] = {}
    for split, size in SPLITS.items():
        splits[split] = []
        while len(splits[split]) < size:
            label = list(data.labels)[len(splits[split]) % len(data.labels)]
            sentences = data.make(world, label)
            if frozenset(sentences) not in seen and len(set(sentences)) == len(sentences):
                seen.add(frozenset(sentences))
                splits[split].append((*sentences, data.labels[label]))
        world.rng.shuffle(splits[split])
    return splits


def write(out: Path) -> None:
    """Write `<out>/<data set>/<split>.tsv`, tab-separated with a header and without quoting."""
    for name, data in DATA_SETS.items():
        (out / name).mkdir(parents=True, exist_ok=True)
        for split, content in rows(name).items():
            with (out / name / f"{split}.tsv").open("w", newline="") as file:
                writer = csv.writer(file, delimiter="\t", lineterminator="\n", quoting=csv.QUOTE_NONE)
                writer.writerows([data.columns, *content])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=TASKS)
    write(parser.parse_args().out)
