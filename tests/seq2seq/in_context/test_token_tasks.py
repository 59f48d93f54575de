"""Prompts of tokens against plain loops and Python's integers, baselines, and a run of each."""

from collections import Counter
from itertools import product

import pytest
import torch

from seq2seq.in_context.token_tasks import EQUALS, PLUS, Addition, PHop, one_hop


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def hop(tokens, hops):
    """The definition by a plain loop; None if a hop does not exist."""
    place = len(tokens) - 1
    for _ in range(hops):
        earlier = [k for k in range(place) if tokens[k] == tokens[place]]
        if not earlier:
            return None
        place = earlier[-1] + 1
    return tokens[place]


def number(digits):
    return int("".join(map(str, reversed(digits))))


@pytest.mark.parametrize(("hops", "alphabet", "points"), [(1, 3, 3), (1, 4, 12), (2, 5, 16), (5, 3, 7), (4, 8, 40)])
def test_answers_are_those_of_a_plain_loop(hops, alphabet, points):
    prompts = PHop(hops, alphabet).draw(300, points, generator())
    assert prompts.tokens.shape == (300, points)
    assert [hop(row, hops) for row in prompts.tokens.tolist()] == prompts.answers[:, 0].tolist()
    assert (prompts.tokens[:, 1:] != prompts.tokens[:, :-1]).all()
    assert prompts.tokens.unique().tolist() == [*range(alphabet)]


def test_sequences_are_uniform_among_those_in_which_all_hops_exist():
    rows = [
        row
        for row in product(range(3), repeat=6)
        if all(a != b for a, b in zip(row, row[1:], strict=False)) and hop(row, 2) is not None
    ]
    found = Counter(map(tuple, PHop(2, 3).draw(40_000, 6, generator()).tokens.tolist()))
    assert set(found) == set(rows)
    expected = 40_000 / len(rows)
    assert sum((found[row] - expected) ** 2 / expected for row in rows) < len(rows) + 4 * (2 * len(rows)) ** 0.5


@pytest.mark.parametrize(("points", "digits"), [(2, 1), (3, 2), (12, 1), (112, 1), (5, 3)])
def test_sums_are_those_of_integers(points, digits):
    task = Addition(digits)
    prompts = task.draw(50, points, generator())
    assert prompts.tokens.shape == (50, task.length(points))
    for row, answer in zip(prompts.tokens.tolist(), prompts.answers.tolist(), strict=True):
        end = row.index(EQUALS)
        terms = row[:end]
        assert terms[digits :: digits + 1] == [PLUS] * (points - 1)
        numbers = [number(terms[k : k + digits]) for k in range(0, end, digits + 1)]
        assert len(numbers) == points
        assert number(answer) == sum(numbers)
        assert row[end + 1 :] == answer[:-1]
        assert len(answer) == task.width(points) == len(str(sum([10**digits - 1] * points)))


@pytest.mark.parametrize("task", [PHop(2, 4), Addition(2)], ids=str)
def test_a_seed_gives_the_same_tokens(task):
    one, other, third = (task.draw(20, 9, generator(seed)) for seed in (0, 0, 1))
    assert torch.equal(one.tokens, other.tokens)
    assert torch.equal(one.answers, other.answers)
    assert not torch.equal(one.tokens, third.tokens)


def test_the_rule_of_one_hop_is_exact_and_has_a_default():
    prompts = PHop(1, 4).draw(200, 12, generator())
    assert torch.equal(one_hop(prompts.tokens), prompts.answers[:, 0])
    assert one_hop(torch.tensor([[1, 2, 3]])).tolist() == [0]
