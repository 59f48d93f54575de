"""One parameter budget for all weights of a factorization, shared out over them by error per parameter.

A network of two cores has one bond. Of the singular values s of the (whitened) weight at that bond, rank r leaves the
squared error s_{r+1}^2 + s_{r+2}^2 + ..., so one more term of weight l lowers the sum of the relative squared errors by

    s_{l,r}^2 / sum_k s_{l,k}^2        and costs c_l parameters: the two cores at rank 1

As s decreases, taking the largest gain per parameter until the budget is spent gives the least sum.
"""

from dataclasses import replace

import torch
from torch import Tensor

from adapters.factorized.configuration import FactorizedConfig
from adapters.factorized.layers import NetworkSpec
from adapters.factorized.moments import Moments
from adapters.factorized.targets import Target
from adapters.factorized.whitening import input_roots, times_kronecker


def spend_budgets(targets: list[Target], moments: dict[str, Moments]) -> list[Target]:
    """The targets, with ranks by error where the configuration says so; without values they stay uniform."""
    by_error: dict[FactorizedConfig, list[Target]] = {}
    for target in targets:
        if target.config.allocation == "error" and not target.like.is_meta:
            by_error.setdefault(target.config, []).append(target)
    ranks: dict[tuple[str, ...], int] = {}
    for config, found in by_error.items():
        gains = [relative_energies(target, moments) for target in found]
        costs = [cost_of_a_term(target.spec) for target in found]
        dense = sum(target.size[0] * target.size[1] for target in found)
        shared_out = allocate(gains, costs, int(config.budget * dense))
        ranks |= {target.paths: rank for target, rank in zip(found, shared_out, strict=True)}
    return [with_rank(target, ranks[target.paths]) if target.paths in ranks else target for target in targets]


def allocate(gains: list[Tensor], costs: list[int], budget: int) -> list[int]:
    """The number of terms of each weight, at least one, and no others without a gain.

    Args:
        gains: of the terms of each weight, in falling order.
        costs: parameters of one term of each weight.
        budget: parameters in all.
    """
    ranks = [1] * len(costs)
    left = budget - sum(costs)
    offers = [
        (gain / cost, weight)
        for weight, (terms, cost) in enumerate(zip(gains, costs, strict=True))
        for gain in terms[1:].tolist()
        if gain > 0
    ]
    full: set[int] = set()
    for _, weight in sorted(offers, key=lambda offer: -offer[0]):
        if weight in full:
            continue
        if costs[weight] > left:
            full.add(weight)
            continue
        ranks[weight] += 1
        left -= costs[weight]
    return ranks


def relative_energies(target: Target, moments: dict[str, Moments]) -> Tensor:
    """The squared singular values at the bond, as shares of their sum; zeros for a weight of zeros."""
    (m1, m2), (n1, n2) = target.spec.raw_shape
    weight = target.weight
    if target.config.whiten != "none":
        weight = times_kronecker(weight, input_roots(moments[target.paths[0]].mean, (n1, n2)))
    unfolding = weight.reshape(m1, m2, n1, n2).transpose(1, 2).reshape(m1 * n1, m2 * n2)
    energies = torch.linalg.svdvals(unfolding).square()
    return energies / energies.sum() if energies.any() else energies


def cost_of_a_term(spec: NetworkSpec) -> int:
    """The parameters of a network of two cores at rank 1."""
    return sum(m * n for m, n in zip(*spec.raw_shape, strict=True)) + spec.scalars


def with_rank(target: Target, rank: int) -> Target:
    """The target with another rank of its network of two cores."""
    return replace(target, spec=replace(target.spec, ranks=(1, rank, 1)))
