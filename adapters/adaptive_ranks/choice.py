"""Choose the ranks of a model's trains, by a tolerance or by a budget of parameters.

    rel_tol   each train separately: || T - T' || <= rel_tol || T ||, distributed evenly over its bonds
    budget    all trains together: repeatedly remove the last direction of the bond where the squared singular value
              s_r^2, times the scaling squared, is smallest per saved parameter,

                  parameters saved at bond k = r_{k-1} m_k n_k + m_{k+1} n_{k+1} r_{k+1}

              until the cores have at most ``budget`` parameters; sums run over a group, whose trains share their ranks

A rank is at least ``min_rank`` (or the current rank if that is smaller), and at most the largest useful one
(``useful_ranks``).
"""

from collections.abc import Sequence

from torch import Tensor

from adapters.adaptive_ranks.trains import Ranks, TrainGroup
from adapters.validation import ConfigurationError
from t3nsor.gauge import ranks_within, useful_ranks

Spectra = Sequence[Sequence[Tensor]]
"""For each layer of a group, for each bond, the singular values."""


def within_tolerance(group: TrainGroup, spectra: Spectra, rel_tol: float, min_rank: int) -> Ranks:
    """Return the smallest ranks at which each train of a group is within the tolerance."""
    by_layer = [ranks_within(of_layer, rel_tol) for of_layer in spectra]
    return clipped(group, tuple(max(ranks) for ranks in zip(*by_layer, strict=True)), min_rank)


def clipped(group: TrainGroup, ranks: Ranks, min_rank: int, max_rank: int | None = None) -> Ranks:
    """Return the ranks clipped to [min_rank, max_rank], to the current ranks, and to the largest useful ones."""
    bounds = zip(ranks, group.ranks, strict=True)
    found = tuple(min(max(rank, min_rank), before, max_rank or before) for rank, before in bounds)
    return useful(group, found)


def useful(group: TrainGroup, ranks: Ranks) -> Ranks:
    """Return the ranks lowered to the largest useful ones in every layer of the group."""
    before = None
    while ranks != before:
        before = ranks
        for layer in group.layers:
            ranks = useful_ranks(layer.raw_shape, ranks)
    return ranks


def check_budget(groups: Sequence[TrainGroup], budget: int, min_rank: int) -> None:
    """Check that the budget can be reached.

    Raises:
        ConfigurationError: the cores have more parameters at their smallest ranks.
    """
    smallest = sum(
        group.parameters_at(useful(group, tuple(min(rank, min_rank) for rank in group.ranks))) for group in groups
    )
    if smallest > budget:
        raise ConfigurationError(
            f"Key 'budget' must be at least the number of parameters at the smallest ranks, {smallest} with min_rank "
            f"{min_rank}; got {budget}: raise it, or lower min_rank."
        )


def within_budget(
    groups: Sequence[TrainGroup], spectra: Sequence[Spectra], start: Sequence[Ranks], budget: int, min_rank: int
) -> list[Ranks]:
    """Return ranks, at most ``start``, at which the cores of all groups have at most ``budget`` parameters.

    Raises:
        ConfigurationError: see ``check_budget``.
    """
    check_budget(groups, budget, min_rank)
    ranks = [list(of_group) for of_group in start]
    squares = [_squares(group, of_group) for group, of_group in zip(groups, spectra, strict=True)]
    parameters = [group.parameters_at(tuple(of_group)) for group, of_group in zip(groups, ranks, strict=True)]
    while sum(parameters) > budget:
        candidates = []
        for i, group in enumerate(groups):
            for k, rank in enumerate(ranks[i]):
                if rank > min_rank:
                    fewer = group.parameters_at((*ranks[i][:k], rank - 1, *ranks[i][k + 1 :]))
                    candidates.append((squares[i][k][rank - 1] / (parameters[i] - fewer), i, k))
        _, i, k = min(candidates)
        ranks[i][k] -= 1
        ranks[i] = list(clipped(groups[i], tuple(ranks[i]), 1))
        parameters[i] = groups[i].parameters_at(tuple(ranks[i]))
    return [tuple(of_group) for of_group in ranks]


def _squares(group: TrainGroup, spectra: Spectra) -> list[list[float]]:
    """Return, for each bond and each of its directions, (s sigma)^2 summed over the layers."""
    found = []
    for k, rank in enumerate(group.ranks):
        columns = [of_layer[k].tolist() for of_layer in spectra]
        padded = [[*values, *[0.0] * (rank - len(values))] for values in columns]
        found.append([group.scaling**2 * sum(value * value for value in row) for row in zip(*padded, strict=True)])
    return found
