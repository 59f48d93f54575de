"""adapt_ranks, orthogonalize: change the ranks or the gauge of a model's trains in place, between two steps.

    G'_k = P_{k-1} G_k Q_k        see ``t3nsor.gauge``, which rounds or transforms each train and returns the maps

Parameter objects are kept, so that the optimizer continues with them; their gradients are dropped and the state of the
optimizer is transformed with them. The new ranks are recorded in the configurations of the attachments, as
``rank_pattern``. All errors are raised before the model is changed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

import t3nsor as t3
from adapters.adaptive_ranks.choice import clipped, useful, within_budget, within_tolerance
from adapters.adaptive_ranks.optimizer_state import check_state, state_of, transform_state
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
    """The new cores of a layer, the successive gauges that lead to them, and the error."""

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
    """Change the ranks of the trains of tt_lora, tt_single and tt_adapter in place; a merged model is unmerged.

    Ranks are truncated first, by ``rel_tol`` or ``budget`` (see ``adapters.adaptive_ranks.choice``) and ``max_rank``.
    Then each grows by ``grow``: new directions are random columns on one side and zeros on the other, so that the
    delta is the same until they are trained. A train whose delta is still zero falls to ``min_rank``.

    Args:
        model: a model with adapters, trained by a single process.
        optimizer: its optimizer, also in accelerate's wrapper; None if there is no state to transform.
        rel_tol: the largest error of each train, relative to its Frobenius norm.
        budget: the largest number of parameters in the cores of all these trains, before they grow.
        min_rank: the smallest rank after truncation.
        max_rank: the largest rank.
        grow: added to each rank, up to the largest useful one; draws from torch's global generator.

    Returns:
        The ranks before and after, and the error, of each train.

    Raises:
        ConfigurationError: an argument is out of range, no train can change its ranks, the budget is too small, the
            state of the optimizer cannot be transformed, or several processes train the model. The model is unchanged.
        ValueError: a core is not finite. The model is unchanged.
    """
    check_arguments(rel_tol, budget, min_rank, max_rank, grow)
    model = check_alone(model)
    groups, left_alone = adaptable_trains(model)
    check_state(optimizer, _parameters(groups))
    _check_finite(groups)
    spectra = [[singular_values(layer.live_cores()) for layer in group.layers] for group in groups]
    chosen = [clipped(group, group.ranks, min_rank, max_rank) for group in groups]
    if rel_tol is not None:
        found = [
            within_tolerance(group, of_group, rel_tol, min_rank)
            for group, of_group in zip(groups, spectra, strict=True)
        ]
        chosen = [tuple(map(min, *pair)) for pair in zip(found, chosen, strict=True)]
        chosen = [clipped(group, ranks, 1) for group, ranks in zip(groups, chosen, strict=True)]
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
    """Orthogonalise the same trains around a core in place; the model computes the same.

    Args:
        model: see ``adapt_ranks``.
        center: the core with the norm; cores to its left get orthonormal columns, cores to its right orthonormal rows.
        optimizer: its optimizer, whose state is transformed too.

    Returns:
        The attachments whose trains were not changed: the reason by name.

    Raises:
        ConfigurationError, ValueError: see ``adapt_ranks``, or there is no core ``center``. The model is unchanged.
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
    """Return the ranks plus ``grow``, up to ``max_rank`` and the largest useful ranks, and never less than before."""
    wanted = tuple(max(rank, min(rank + grow, max_rank or rank + grow)) for rank in ranks)
    return useful(group, wanted)


def check_arguments(rel_tol: float | None, budget: int | None, min_rank: int, max_rank: int | None, grow: int) -> None:
    """Check the arguments of ``adapt_ranks``: types, ranges, and which of them exclude each other."""

    types = {"rel_tol": float | None, "budget": int | None, "min_rank": int, "max_rank": int | None, "grow": int}
    for (key, annotation), value in zip(types.items(), (rel_tol, budget, min_rank, max_rank, grow), strict=True):
        check_type(key, value, annotation, WHERE)

    if rel_tol is not None and budget is not None:
        _refuse("rel_tol", "excludes a budget", f"{rel_tol} with a budget of {budget}", "drop one of the two")
    if rel_tol is None and budget is None and max_rank is None and not grow:
        _refuse("rel_tol", "or 'budget', 'max_rank' or 'grow' is required", "none of them", "give one")
    if rel_tol is not None and not 0 <= rel_tol < 1:
        _refuse("rel_tol", "must be a share of the norm in [0, 1)", rel_tol, "0.01 is typical")
    for key, value in (("budget", budget), ("min_rank", min_rank), ("max_rank", max_rank)):
        if value is not None and value < 1:
            _refuse(key, "must be a positive integer", value, "raise it")
    if grow < 0:
        _refuse("grow", "must be an integer of at least 0, added to each rank", grow, "leave it out for no growth")
    if max_rank is not None and max_rank < min_rank:
        _refuse("max_rank", "must be at least min_rank", f"{max_rank} with a min_rank of {min_rank}", "raise it")


def check_alone(model: nn.Module) -> nn.Module:
    """Return the original of a compiled model, after checking that a single process trains it."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        processes = torch.distributed.get_world_size()
        if processes > 1:
            raise ConfigurationError(
                f"Ranks can change only in a model trained by one process; got {processes} under DDP, which needs "
                "fixed shapes: start the run without torchrun."
            )
    return uncompiled(model)


def _parameters(groups: Sequence[TrainGroup]) -> list[nn.Parameter]:
    return [parameter for group in groups for layer in group.layers for parameter in layer.cores]


def _check_finite(groups: Sequence[TrainGroup]) -> None:
    """Check that all cores are finite; the error names the path of the train."""
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
    """Replace the cores, and transform the state of the optimizer."""
    change.layer.set_cores(change.cores)
    state = state_of(optimizer)
    for k, parameter in enumerate(change.layer.cores):
        if parameter in state:
            for gauge in change.gauges:
                state[parameter] = transform_state(state[parameter], k, gauge)
