"""Candidates: what a decoder returns for a trace, the best first."""

from typing import NamedTuple


class Candidate(NamedTuple):
    """A word and its score.

    Args:
        word: its letters, as they are typed.
        log_probability: natural logarithm, with a language model's share if there is one; candidates of a trace are
            ranked by it.
    """

    word: str
    log_probability: float
