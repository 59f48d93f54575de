"""The answer of each skill is correct, checked against lexicon, grammar and independent readings of the texts."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seq2seq.small_world import lexicon, opinion_skills, sentence_skills, slips, word_skills
from seq2seq.small_world.events import World
from seq2seq.small_world.skills import BROAD, LESSONS, SKILLS, mixture
from tests.seq2seq.small_world.readings import content, favourable

SEEDS = st.integers(0, 10**9)


@pytest.mark.parametrize("skill", SKILLS, ids=lambda skill: skill.__name__)
def test_items_depend_only_on_the_seed(skill):
    items = [skill(World(seed)) for seed in range(30)]
    assert items == [skill(World(seed)) for seed in range(30)]
    assert len(set(items)) > 20
    assert all(source and target for source, target in items)


@pytest.mark.parametrize("lesson", LESSONS)
def test_a_mixture_has_its_skills_in_their_shares(lesson):
    items = mixture(World(0), 4000, lesson)
    assert items == mixture(World(0), 4000, lesson)
    share = sum(source.startswith("what changed ?") for source, _ in items) / len(items)
    expected = lesson.shares[sentence_skills.what_changed] / sum(lesson.shares.values())
    assert abs(share - expected) < 4 * (expected / len(items)) ** 0.5
    assert set(lesson.shares) == set(BROAD.shares)


@given(SEEDS)
def test_filling_the_spans_restores_the_passage(seed):
    source, target = sentence_skills.fill(World(seed))
    spans = {}
    for word in target.split():
        if word.startswith("<"):
            spans[word] = []
        else:
            spans[list(spans)[-1]].append(word)
    last = list(spans)[-1]
    assert spans[last] == []
    assert last not in source
    words = [part for word in source.split() for part in (spans[word] if word.startswith("<") else [word])]
    assert " ".join(words) == sentence_skills.passage(World(seed))
    assert all(1 <= len(spans[mark]) <= 3 for mark in spans if mark != last)


@given(SEEDS)
def test_yes_and_no_match_the_content_of_the_statement(seed):
    source, answer = sentence_skills.is_it_so(World(seed))
    statement, question = source.removesuffix(" ?").split(" . ")
    if answer == "yes":
        assert content(question) <= content(statement)
        assert "not" not in statement.split()
    elif answer == "no not":
        assert content(question) | {"not"} <= content(statement)
    elif answer != "no roles":
        assert not content(question) <= content(statement)


@given(SEEDS)
def test_the_agreeing_statement_has_the_same_content(seed):
    source, answer = sentence_skills.says_the_same(World(seed))
    statement, choices = source.split(" which agrees ? a : ")
    texts = dict(zip("ab", choices.split(" b : "), strict=True))
    assert content(texts[answer]) == content(statement)


@given(SEEDS)
def test_new_words_are_only_in_the_second_statement(seed):
    source, answer = sentence_skills.what_changed(World(seed))
    before, after = source.removeprefix("what changed ? before : ").split(" after : ")
    new = content(answer) - set(sentence_skills.RESPECTS.values()) - content(before)
    assert new
    assert new <= content(after)


@given(SEEDS)
def test_the_answer_to_who_is_in_the_text(seed):
    source, answer = sentence_skills.who(World(seed))
    assert f" {answer} " in f" {source} "


@pytest.mark.parametrize(
    "skill", [sentence_skills.other_voice, sentence_skills.other_words, sentence_skills.unscramble]
)
@given(SEEDS)
def test_rewriting_keeps_the_content(skill, seed):
    source, answer = skill(World(seed))
    assert content(source.split(" : ")[1]) == content(answer)


@given(SEEDS)
def test_more_general_words_are_kinds_of_the_original_ones(seed):
    source, answer = sentence_skills.more_general(World(seed))
    old = content(source.removeprefix("more general : "))
    for new in content(answer) - old - {"some"}:
        assert new in {kind for word in old for twin in (word, lexicon.SYNONYMS.get(word, word))
                       for kind in lexicon.kinds_above(twin)}  # fmt: skip


@given(SEEDS)
def test_shorter_adds_no_words(seed):
    source, answer = sentence_skills.shorter(World(seed))
    assert set(answer.split()) - {"a", "an"} <= set(source.split())


@given(SEEDS)
def test_the_first_event_is_before_the_other(seed):
    source, answer = sentence_skills.what_first(World(seed))
    told = source.removesuffix(" . what came first ?")
    if told.startswith(("before ", "after ")):
        joint, (other, main) = told.split()[0], told.split(" ", 1)[1].split(" , ")
    else:
        joint = "before" if " before " in told else "after"
        main, other = told.split(f" {joint} ")
    assert answer == (main if joint == "before" else other)


@given(SEEDS)
def test_a_mended_sentence_differs_by_at_most_one_error(seed):
    source, answer = slips.mend(World(seed))
    given_words, right = source.removeprefix("mend : ").split(), answer.split()
    changed = sum(a != b for a, b in zip(given_words, right, strict=False))
    assert len(right) - len(given_words) in (0, 1)
    assert changed <= 2 or len(given_words) < len(right)


@given(SEEDS)
def test_a_broken_sentence_differs(seed):
    world = World(seed)
    text = slips.sound_sentence(world)
    assert slips.broken(world, text) != text


@given(SEEDS)
def test_counts_and_the_odd_one_out(seed):
    source, count = word_skills.how_many(World(seed))
    kind, words = source.removeprefix("how many of kind ").removesuffix(" ?").split(" : ")
    assert lexicon.NUMBER_WORDS.index(count) == sum(kind in lexicon.kinds_above(word) for word in words.split())
    source, odd = word_skills.odd_one_out(World(seed))
    words = source.removeprefix("which does not belong : ").removesuffix(" ?").split()
    roots = {word: lexicon.kinds_above(word)[-1] for word in words}
    assert [word for word in words if list(roots.values()).count(roots[word]) == 1] == [odd]


@given(SEEDS)
def test_the_new_word_is_only_in_the_second_list(seed):
    source, new = word_skills.new_word(World(seed))
    before, after = source.removeprefix("before : ").removesuffix(" which is new ?").split(" after : ")
    assert set(after.split()) - set(before.split()) == {new}


@given(SEEDS)
def test_exactly_one_word_matches(seed):
    source, answer = word_skills.matching_word(World(seed))
    word, words = source.removeprefix("which means ").removesuffix(" ?").split(" : ")
    assert [each for each in words.split() if each in (word, lexicon.SYNONYMS[word])] == [answer]


@given(SEEDS)
def test_amounts_are_read_and_compared(seed):
    source, answer = word_skills.measure(World(seed))
    words = source.split()
    amounts = {words[0]: words[2], words[4]: words[6]}
    if "much" in words:
        assert answer == amounts[words[-2]]
    else:
        assert answer == (max if "more" in words else min)(amounts, key=lambda person: float(amounts[person]))


@given(SEEDS)
def test_who_was_pleased_matches_the_opinions(seed):
    source, answer = opinion_skills.who_was_pleased(World(seed))
    told = re.split(" and |(?<!anything) but ", source.removesuffix(" . who was pleased ?"))
    pleased = [word for half in told if favourable(half) for word in half.split() if word in lexicon.PEOPLE]
    assert answer == {0: "nobody", 1: "".join(pleased), 2: "both"}[len(pleased)]
