"""How a tensor network meets data: y = x (B + W)^T + b, and which way the three contractions of a step take.

    matmul          the product, checked                          plans, planner   the choice of a way
    function        one differentiable operation, compiled too    work, device     what a way costs, and where
    way             what a way offers                             explanation      the table of all ways
    sequential, halves, materialised    the ways                  rows             rows looked up by index
    chains          products of cores                             precision        products in their operands' dtype
    clock           seconds of a call

A way is one module; a device is one line of `device`.
"""

from .chains import dense
from .explanation import Explanation, StrategyCost, explain
from .matmul import check_plan, matmul
from .plans import Plan
from .precision import autocast_off, contract
from .rows import gather_rows

__all__ = [
    "Explanation",
    "Plan",
    "StrategyCost",
    "autocast_off",
    "check_plan",
    "contract",
    "dense",
    "explain",
    "gather_rows",
    "matmul",
]
