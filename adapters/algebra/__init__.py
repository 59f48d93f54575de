"""Algebra on adapters: the deltas of linears as vectors, in their format.

x, y = adapters.Deltas.read("a"), adapters.Deltas.read("b")
rounded, report = ((x + y) / 2).round(max_rank=8)           what the rounding cost, by linear and in all
rounded.write("mean", like="a")                             loads as "a" does
adapters.combine(["a", "b"], max_rank=8, output="mean")     the same in one line
print(adapters.compare(["a", "b"]))                         norms, cosines, distances
"""

from adapters.algebra.combination import Comparison, combine, compare
from adapters.algebra.deltas import Deltas
from adapters.algebra.report import Approximation, ApproximationReport

__all__ = ["Approximation", "ApproximationReport", "Comparison", "Deltas", "combine", "compare"]
