"""The mixture of skills that the backbone is pretrained on.

None of them is one of the downstream tasks of `datasets.py`: a skill never asks whether a sentence is acceptable, which
polarity a review has, or how two statements relate; it asks for what such judgements are made of.
"""

from collections.abc import Callable

from seq2seq.small_world import opinion_skills, sentence_skills, slips, word_skills
from seq2seq.small_world.events import World

Pair = tuple[str, str]
Skill = Callable[[World], Pair]

# skill -> its share of the mixture, relative to the others; comparing two statements is learned last and gets most.
MIXTURE: dict[Skill, float] = {
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
}


def mixture(world: World, count: int) -> list[Pair]:
    """`count` (source, target) pairs from the mixture."""
    chosen = world.rng.choices(list(MIXTURE), list(MIXTURE.values()), k=count)
    return [skill(world) for skill in chosen]
