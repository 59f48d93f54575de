"""Change the ranks of adapters during training, and the gauge of their trains.

    report = adapt_ranks(model, optimizer, budget=20_000)      between two steps: truncate where least is lost
    schedule = RankSchedule(start=50, every=50, end=200, rel_tol=0.1)
    schedule.step(model, optimizer, step)                      the same at the steps of a schedule
    orthogonalize(model, optimizer=optimizer)                  another gauge, the same model
    fit_ranks(model, directory)                                before ``load``, if only ranks differ

trains     which trains can change              choice    new ranks by tolerance or budget      change    apply them
restore    the ranks of a saved folder          optimizer_state, schedule, report
"""

from adapters.adaptive_ranks.change import adapt_ranks, orthogonalize
from adapters.adaptive_ranks.report import RankChange, RankReport
from adapters.adaptive_ranks.restore import fit_ranks
from adapters.adaptive_ranks.schedule import RankSchedule

__all__ = ["RankChange", "RankReport", "RankSchedule", "adapt_ranks", "fit_ranks", "orthogonalize"]
