"""Function classes on tokens: p-hop induction and addition (Saunshi et al. 2025, arXiv:2502.17416).

    tokens     (batch, length)      int64, what the model reads
    answers    (batch, answers)     int64, what it predicts at the last so many positions

    p_hop      v_1 ... v_n                 from the last token, a hop goes to the token after the previous occurrence of
                                           the current one; the answer is the token after p hops
    addition   a_1 + ... + a_n = s_1 ...   numbers of k digits; the answer has the digits of the largest possible sum

Digits are written from the least significant one, so that carries go the way in which answers are read (Lee et al.
2023, arXiv:2307.03381). Each digit is predicted with the true ones before it. All of them are right if and only if the
greedy continuation of "=" is.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

BASE = 10
PLUS, EQUALS = BASE, BASE + 1
"""Tokens after those of the digits."""


@dataclass(frozen=True)
class TokenPrompts:
    """Tokens (batch, length) and the answers (batch, answers) at the last of their positions."""

    tokens: Tensor
    answers: Tensor

    def encoded(self) -> dict[str, Tensor]:
        """What the trainer reads."""
        return {"inputs": self.tokens, "labels": self.answers}


@dataclass(frozen=True)
class PHop:
    """p-hop induction.

    Args:
        hops: p.
        alphabet: number of tokens, at least 3.
    """

    hops: int
    alphabet: int

    @property
    def label(self) -> str:
        return f"{self.hops}-hop induction over {self.alphabet} tokens"

    @property
    def vocabulary(self) -> int:
        return self.alphabet

    @property
    def symbols(self) -> int:
        """Among how many tokens an answer is."""
        return self.alphabet

    @property
    def least_points(self) -> int:
        """Of the shortest sequence in which all hops exist."""
        return self.hops + 2

    def length(self, points: int) -> int:
        """Tokens of a prompt."""
        return points

    def draw(self, batch: int, points: int, generator: torch.Generator) -> TokenPrompts:
        """Sequences, uniform among those in which no token repeats its neighbour and all hops exist.

        A repeated token would be a hop to itself. Read from the end, each token but the last two is, independently,
        with probability 1 / (alphabet - 1) the previous occurrence of the current one, from which the next hop goes on:
        so the number of hops is binomial, here given that it is at least p, and their places are uniform.
        """
        steps, least = points - 2, self.hops
        binomial = torch.distributions.Binomial(steps, 1 / (self.alphabet - 1))
        counts = torch.arange(least, steps + 1)
        chances = binomial.log_prob(counts.float()).softmax(0)
        hops = counts[torch.multinomial(chances, batch, replacement=True, generator=generator)]
        order = torch.rand(batch, steps, generator=generator).argsort(1).argsort(1)
        is_hop = order < hops[:, None]  # (batch, steps), from the end
        current = torch.randint(self.alphabet, (batch,), generator=generator)
        newer = (current + 1 + torch.randint(self.alphabet - 1, (batch,), generator=generator)) % self.alphabet
        others = torch.randint(self.alphabet - 2, (batch, steps), generator=generator)
        backwards, answers = [current, newer], newer
        done = torch.zeros(batch, dtype=torch.long)
        for step in range(steps):
            low, high = torch.minimum(current, newer), torch.maximum(current, newer)
            neither = others[:, step] + (others[:, step] >= low)
            neither = neither + (neither >= high)  # uniform over the tokens that are neither of both
            hop = is_hop[:, step]
            token = torch.where(hop, current, neither)
            done = done + hop
            current = torch.where(hop, newer, current)
            answers = torch.where(hop & (done == self.hops), current, answers)
            backwards.append(token)
            newer = token
        return TokenPrompts(torch.stack(backwards[::-1], dim=1), answers[:, None])


@dataclass(frozen=True)
class Addition:
    """The sum of ``points`` numbers.

    Args:
        digits: k, of each number; leading zeros are written.
    """

    digits: int

    least_points = 2
    vocabulary = BASE + 2
    symbols = BASE

    @property
    def label(self) -> str:
        return f"addition, {self.digits} digits"

    def width(self, points: int) -> int:
        """Digits of the largest sum."""
        return len(str(points * (BASE**self.digits - 1)))

    def length(self, points: int) -> int:
        """Tokens of a prompt: numbers, a sign after each, and all digits of the answer but the last."""
        return points * (self.digits + 1) + self.width(points) - 1

    def draw(self, batch: int, points: int, generator: torch.Generator) -> TokenPrompts:
        """Prompts of numbers that are uniform and independent."""
        numbers = torch.randint(BASE**self.digits, (batch, points), generator=generator)
        signs = torch.full((batch, points, 1), PLUS)
        signs[:, -1] = EQUALS
        terms = torch.cat([digits_of(numbers, self.digits), signs], dim=2).flatten(1)  # (batch, points (digits + 1))
        answers = digits_of(numbers.sum(1), self.width(points))
        return TokenPrompts(torch.cat([terms, answers[:, :-1]], dim=1), answers)


def digits_of(numbers: Tensor, width: int) -> Tensor:
    """The digits (..., width) of numbers (...), the least significant one first."""
    return numbers[..., None] // BASE ** torch.arange(width) % BASE


def one_hop(tokens: Tensor) -> Tensor:
    """The token (batch,) after the previous occurrence of the last one; token 0 if it has not occurred."""
    last, before = tokens[:, -1:], tokens[:, :-1]
    places = torch.arange(before.shape[1])
    previous = torch.where(before == last, places, -1).amax(1)  # (batch,)
    return tokens.gather(1, previous[:, None] + 1)[:, 0].where(previous >= 0, 0)
