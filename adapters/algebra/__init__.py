"""Algebra on adapters: add, scale, round and compare the deltas of linears, in tensor-train format.

x, y = adapters.Deltas.read("a"), adapters.Deltas.read("b")
rounded, report = ((x + y) / 2).round(max_rank=8)           the error of rounding, by linear and in total
rounded.write("mean", like="a")                             loads like "a"
adapters.combine(["a", "b"], max_rank=8, output="mean")     the same in one line
print(adapters.compare(["a", "b"]))                         norms, cosines, distances
"""

from adapters.algebra.combination import Comparison, combine, compare
from adapters.algebra.deltas import Deltas
from adapters.algebra.report import Approximation, ApproximationReport

__all__ = ["Approximation", "ApproximationReport", "Comparison", "Deltas", "combine", "compare"]
