"""Which ranks a model's trains should have: by a tolerance, or by a number of numbers in all.

    rel_tol   each train by itself: || T - T' || <= rel_tol || T ||, the same at each of its bonds
    budget    all trains together: again and again the bond loses its last direction whose singular value s_r, squared
              and times the scaling squared, is least for each number that is saved,

                  numbers saved at bond k = r_{k-1} m_k n_k + m_{k+1} n_{k+1} r_{k+1}

              until the cores have at most so many numbers; of a group, which has its ranks in common, all are summed

A rank is at least ``min_rank``, or what it is where that is less, and what both neighbours can use (``useful_ranks``).
"""

from collections.abc import Sequence

from torch import Tensor

from adapters.adaptive_ranks.trains import Ranks, TrainGroup
from adapters.validation import ConfigurationError
from t3nsor.gauge import ranks_within, useful_ranks

Spectra = Sequence[Sequence[Tensor]]
"""Of each layer of a group, of each bond, the singular values."""


def within_tolerance(group: TrainGroup, spectra: Spectra, rel_tol: float, min_rank: int) -> Ranks:
    """The smallest ranks at which each train of a group is within the tolerance."""
    by_layer = [ranks_within(of_layer, rel_tol) for of_layer in spectra]
    return within_reach(group, tuple(max(ranks) for ranks in zip(*by_layer, strict=True)), min_rank)


def within_reach(group: TrainGroup, ranks: Ranks, min_rank: int, max_rank: int | None = None) -> Ranks:
    """These ranks, from ``min_rank`` to ``max_rank``, no larger than they are, and of use in each layer."""
    bounds = zip(ranks, group.ranks, strict=True)
    found = tuple(min(max(rank, min_rank), before, max_rank or before) for rank, before in bounds)
    return of_use(group, found)


def of_use(group: TrainGroup, ranks: Ranks) -> Ranks:
    """These ranks, lowered to what the neighbours in every layer of the group can use."""
    before = None
    while ranks != before:
        before = ranks
        for layer in group.layers:
            ranks = useful_ranks(layer.raw_shape, ranks)
    return ranks


def check_budget(groups: Sequence[TrainGroup], budget: int, min_rank: int) -> None:
    """Refuse a budget that no cut can reach.

    Raises:
        ConfigurationError: the cores have more numbers at the least ranks.
    """
    least = sum(group.numbers(of_use(group, tuple(min(rank, min_rank) for rank in group.ranks))) for group in groups)
    if least > budget:
        raise ConfigurationError(
            f"Key 'budget' is a number of numbers that the cores can have; got {budget}, and they have "
            f"{least} at the least ranks (min_rank {min_rank}): raise it, or lower min_rank."
        )


def within_budget(
    groups: Sequence[TrainGroup], spectra: Sequence[Spectra], start: Sequence[Ranks], budget: int, min_rank: int
) -> list[Ranks]:
    """Ranks from ``start`` down at which the cores of all groups have at most ``budget`` numbers.

    Raises:
        ConfigurationError: as for ``check_budget``.
    """
    check_budget(groups, budget, min_rank)
    ranks = [list(of_group) for of_group in start]
    squares = [_squares(group, of_group) for group, of_group in zip(groups, spectra, strict=True)]
    numbers = [group.numbers(tuple(of_group)) for group, of_group in zip(groups, ranks, strict=True)]
    while sum(numbers) > budget:
        candidates = []
        for i, group in enumerate(groups):
            for k, rank in enumerate(ranks[i]):
                if rank > min_rank:
                    fewer = group.numbers((*ranks[i][:k], rank - 1, *ranks[i][k + 1 :]))
                    candidates.append((squares[i][k][rank - 1] / (numbers[i] - fewer), i, k))
        _, i, k = min(candidates)
        ranks[i][k] -= 1
        ranks[i] = list(within_reach(groups[i], tuple(ranks[i]), 1))
        numbers[i] = groups[i].numbers(tuple(ranks[i]))
    return [tuple(of_group) for of_group in ranks]


def _squares(group: TrainGroup, spectra: Spectra) -> list[list[float]]:
    """Of each bond, for each direction that it has, the square of s times the singular values, summed over layers."""
    found = []
    for k, rank in enumerate(group.ranks):
        columns = [of_layer[k].tolist() for of_layer in spectra]
        padded = [[*values, *[0.0] * (rank - len(values))] for values in columns]
        found.append([group.scaling**2 * sum(value * value for value in row) for row in zip(*padded, strict=True)])
    return found
