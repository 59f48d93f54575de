"""adapt_ranks, orthogonalize: the trains of a model in other ranks or another gauge, in place, between two steps.

    G'_k = P_{k-1} G_k Q_k        see ``t3nsor.gauge``, which rounds or turns each train and says its maps

Parameter objects stay, so that an optimizer goes on with them; their gradients are dropped and what the optimizer
remembers is carried along. The configurations of the attachments say the new ranks as ``rank_pattern``. Everything that
can be refused is refused before the model is touched.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

import t3nsor as t3
from adapters.adaptive_ranks.choice import of_use, within_budget, within_reach, within_tolerance
from adapters.adaptive_ranks.optimizer_state import carry, check_state, state_of
from adapters.adaptive_ranks.report import RankChange, RankReport
from adapters.adaptive_ranks.trains import (
    Ranks,
    TrainGroup,
    adaptable_trains,
    delta_norm,
    parameter_count,
    record_ranks,
    refresh_counts,
)
from adapters.compiled import uncompiled
from adapters.merging import unmerge
from adapters.validation import ConfigurationError, check_type, refuse
from t3nsor.gauge import Gauge, grown, orthogonal_gauge, regauge, singular_values
from t3nsor.truncation import check_finite

WHERE = "a change of ranks"
_refuse = partial(refuse, where=WHERE)


@dataclass
class Planned:
    """The new cores of a layer, the gauges that led to them one after the other, and what that changed."""

    layer: t3.TTLinear
    cores: Sequence[Tensor]
    gauges: list[Gauge]
    error: float = 0.0


def adapt_ranks(
    model: nn.Module,
    optimizer: torch.optim.Optimizer | None = None,
    rel_tol: float | None = None,
    budget: int | None = None,
    min_rank: int = 1,
    max_rank: int | None = None,
    grow: int = 0,
) -> RankReport:
    """Give the trains of tt_lora, tt_single and tt_adapter other ranks, in place, and unmerge the model.

    Ranks are cut first, by ``rel_tol`` or ``budget`` (see ``adapters.adaptive_ranks.choice``) and by ``max_rank``. Then
    each grows by ``grow``: new directions are random columns on one side and zeros on the other, so that nothing
    changes until they learn. A train whose delta is still zero has no singular values, and falls to ``min_rank``.

    Args:
        model: a model with adapters, in a process of its own.
        optimizer: what trains it, also in accelerate's wrapper; None where nothing is to be carried along.
        rel_tol: what each train may lose, relative to its Frobenius norm.
        budget: how many numbers the cores of all these trains may have, before they grow.
        min_rank: the least that a rank is cut to.
        max_rank: the most that it may be.
        grow: by how much each rank rises, as far as its neighbours can use it; draws from torch's own generator.

    Returns:
        The ranks before and after, and the error, of each train.

    Raises:
        ConfigurationError: an argument is out of range, no train can change its ranks, the budget is too small, the
            optimizer keeps what cannot be carried along, or several processes train the model. The model is as it was.
        ValueError: a core is not finite. The model is as it was.
    """
    check_arguments(rel_tol, budget, min_rank, max_rank, grow)
    model = check_alone(model)
    groups, left_alone = adaptable_trains(model)
    check_state(optimizer, _parameters(groups))
    _check_finite(groups)
    spectra = [[singular_values(layer.live_cores()) for layer in group.layers] for group in groups]
    chosen = [within_reach(group, group.ranks, min_rank, max_rank) for group in groups]
    if rel_tol is not None:
        found = [
            within_tolerance(group, of_group, rel_tol, min_rank)
            for group, of_group in zip(groups, spectra, strict=True)
        ]
        chosen = [tuple(map(min, *pair)) for pair in zip(found, chosen, strict=True)]
        chosen = [within_reach(group, ranks, 1) for group, ranks in zip(groups, chosen, strict=True)]
    elif budget is not None:
        chosen = within_budget(groups, spectra, chosen, budget, min_rank)
    before = parameter_count(groups)
    planned = [
        [_plan(layer, ranks, larger(group, ranks, grow, max_rank)) for layer in group.layers]
        for group, ranks in zip(groups, chosen, strict=True)
    ]
    rows = []
    for group, of_group, changes in zip(groups, spectra, planned, strict=True):
        norm = delta_norm([float(torch.linalg.vector_norm(of_layer[0])) for of_layer in of_group])
        error = delta_norm([change.error for change in changes])
        after = t3.TensorTrain(changes[0].cores).ranks[1:-1]
        scale = abs(group.scaling)
        rows.append(RankChange(group.name, group.path, group.ranks, after, scale * norm, scale * error))
    unmerge(model)
    record_ranks(model, [(group, row.after) for group, row in zip(groups, rows, strict=True)])
    for change in (change for changes in planned for change in changes if change.gauges):
        _apply(change, optimizer)
    refresh_counts(model)
    return RankReport(tuple(rows), before, parameter_count(groups), left_alone)


def orthogonalize(model: nn.Module, center: int = -1, optimizer: torch.optim.Optimizer | None = None) -> dict[str, str]:
    """Bring the same trains into the gauge that is orthogonal around a core, in place; the model computes the same.

    Args:
        model: as for ``adapt_ranks``.
        center: the core that holds the norm; those left of it get orthonormal columns, those right of it rows.
        optimizer: what trains it; what it remembers is carried along.

    Returns:
        By name the attachments of trains that were left alone, and why.

    Raises:
        ConfigurationError, ValueError: as for ``adapt_ranks``, or there is no core ``center``. The model is as it was.
    """
    model = check_alone(model)
    groups, left_alone = adaptable_trains(model)
    check_state(optimizer, _parameters(groups))
    _check_finite(groups)
    planned = []
    for layer in (layer for group in groups for layer in group.layers):
        cores = layer.live_cores()
        gauge = orthogonal_gauge(cores, center)
        planned.append(Planned(layer, gauge.cores(cores), [gauge]))
    unmerge(model)
    for change in planned:
        _apply(change, optimizer)
    return left_alone


def larger(group: TrainGroup, ranks: Ranks, grow: int, max_rank: int | None) -> Ranks:
    """These ranks and ``grow`` more, as far as ``max_rank`` and every layer allow; never less than these."""
    wanted = tuple(max(rank, min(rank + grow, max_rank or rank + grow)) for rank in ranks)
    return of_use(group, wanted)


def check_arguments(rel_tol: float | None, budget: int | None, min_rank: int, max_rank: int | None, grow: int) -> None:
    """Refuse numbers that say nothing about ranks, or that exclude each other."""

    types = {"rel_tol": float | None, "budget": int | None, "min_rank": int, "max_rank": int | None, "grow": int}
    for (key, annotation), value in zip(types.items(), (rel_tol, budget, min_rank, max_rank, grow), strict=True):
        check_type(key, value, annotation, WHERE)

    if rel_tol is not None and budget is not None:
        _refuse("rel_tol", "excludes a budget", f"{rel_tol} beside a budget of {budget}", "drop one of the two")
    if rel_tol is None and budget is None and max_rank is None and not grow:
        _refuse("rel_tol", "or 'budget', 'max_rank' or 'grow' says what the ranks will be", "none", "give one")
    if rel_tol is not None and not 0 <= rel_tol < 1:
        _refuse("rel_tol", "is a share of the norm, from 0 up to, not including, 1", rel_tol, "0.01 is usual")
    for key, value, least in (("budget", budget, 1), ("min_rank", min_rank, 1), ("max_rank", max_rank, 1)):
        if value is not None and value < least:
            _refuse(key, f"is a whole number from {least} on", value, "raise it")
    if grow < 0:
        _refuse("grow", "is by how much ranks rise, from 0 on", grow, "leave it out to let none rise")
    if max_rank is not None and max_rank < min_rank:
        _refuse("max_rank", "is at least min_rank", f"{max_rank} beside a min_rank of {min_rank}", "raise it")


def check_alone(model: nn.Module) -> nn.Module:
    """The model itself where it is compiled; several processes are refused."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        processes = torch.distributed.get_world_size()
        if processes > 1:
            raise ConfigurationError(
                f"Ranks change in a model that one process trains; this one is trained by {processes} under DDP, which "
                "has reserved its buffers for cores of one shape: start the run without torchrun."
            )
    return uncompiled(model)


def _parameters(groups: Sequence[TrainGroup]) -> list[nn.Parameter]:
    return [parameter for group in groups for layer in group.layers for parameter in layer.cores]


def _check_finite(groups: Sequence[TrainGroup]) -> None:
    """Refuse a core with a NaN or an infinity by the place of its train."""
    for group in groups:
        for parameter in _parameters([group]):
            check_finite(parameter, f"Each core of {group.name} at {group.path}")


def _plan(layer: t3.TTLinear, ranks: Ranks, larger_ranks: Ranks) -> Planned:
    rounded = regauge(layer.live_cores(), ranks)
    planned = Planned(layer, rounded.cores, [] if ranks == layer.ranks[1:-1] else [rounded.gauge], rounded.error)
    if larger_ranks != ranks:
        planned.cores, gauge = grown(planned.cores, larger_ranks)
        planned.gauges.append(gauge)
    return planned


def _apply(change: Planned, optimizer: torch.optim.Optimizer | None) -> None:
    """Put the new cores in place, and what the optimizer remembers of them beside."""
    change.layer.set_cores(change.cores)
    state = state_of(optimizer)
    for k, parameter in enumerate(change.layer.cores):
        if parameter in state:
            for gauge in change.gauges:
                state[parameter] = carry(state[parameter], k, gauge)
