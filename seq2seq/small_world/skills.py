"""The mixture of skills on which the backbone is pretrained.

None of them is one of the downstream tasks of `datasets.py`: no skill asks whether a sentence is acceptable, which
polarity a review has, or how two statements relate; skills exercise the knowledge that such judgements need.
"""

from collections.abc import Callable
from dataclasses import dataclass

from seq2seq.small_world import opinion_skills, sentence_skills, slips, word_skills
from seq2seq.small_world.events import World

Pair = tuple[str, str]
Skill = Callable[[World], Pair]


@dataclass(frozen=True)
class Lesson:
    """A phase of pretraining: `shares` maps each skill to its relative share of the mixture."""

    shares: dict[Skill, float]
    steps: int


BROAD = Lesson(
    {
        word_skills.synonym: 0.6,
        word_skills.opposite: 0.5,
        word_skills.kind: 0.7,
        word_skills.odd_one_out: 0.5,
        word_skills.matching_word: 1,
        word_skills.new_word: 1,
        word_skills.how_many: 0.7,
        word_skills.measure: 0.7,
        sentence_skills.fill: 3,
        sentence_skills.who: 2.5,
        sentence_skills.is_it_so: 5,
        sentence_skills.what_changed: 4,
        sentence_skills.says_the_same: 3,
        sentence_skills.other_voice: 2,
        sentence_skills.other_words: 1.5,
        sentence_skills.more_general: 1,
        sentence_skills.shorter: 1,
        sentence_skills.unscramble: 0.7,
        sentence_skills.what_first: 0.7,
        slips.mend: 2,
        opinion_skills.praise_or_blame: 0.6,
        opinion_skills.feeling: 2.5,
        opinion_skills.who_was_pleased: 1.2,
    },
    steps=5000,
)
# Comparing two statements takes longest to learn, and is learned after words and voices are known: it gets most of the
# second lesson; the other skills keep a third of their shares so that they are not forgotten.
COMPARING = Lesson(
    {skill: share / 3 for skill, share in BROAD.shares.items()}
    | {
        sentence_skills.is_it_so: 8,
        sentence_skills.what_changed: 5,
        sentence_skills.says_the_same: 4,
        sentence_skills.who: 2,
    },
    steps=5000,
)
LESSONS = (BROAD, COMPARING)
SKILLS = tuple(BROAD.shares)


def mixture(world: World, count: int, lesson: Lesson = BROAD) -> list[Pair]:
    """Draw `count` (source, target) pairs from a lesson's mixture."""
    chosen = world.rng.choices(list(lesson.shares), list(lesson.shares.values()), k=count)
    return [skill(world) for skill in chosen]
