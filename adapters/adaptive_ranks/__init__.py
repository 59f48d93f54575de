"""Ranks that adapt while an adapter trains, and the gauge of its trains.

    report = adapt_ranks(model, optimizer, budget=20_000)      between two steps: cut where least is lost
    schedule = RankSchedule(start=50, every=50, end=200, rel_tol=0.1)
    schedule.step(model, optimizer, step)                      the same at the steps of a schedule
    orthogonalize(model, optimizer=optimizer)                  another gauge, the same model
    fit_ranks(model, directory)                                before ``load``, where only ranks differ

trains     what can change and what cannot      choice    which ranks: tolerance, budget      change    doing it
restore    the ranks of a saved folder          optimizer_state, schedule, report
"""

from adapters.adaptive_ranks.change import adapt_ranks, orthogonalize
from adapters.adaptive_ranks.report import RankChange, RankReport
from adapters.adaptive_ranks.restore import fit_ranks
from adapters.adaptive_ranks.schedule import RankSchedule

__all__ = ["RankChange", "RankReport", "RankSchedule", "adapt_ranks", "fit_ranks", "orthogonalize"]
