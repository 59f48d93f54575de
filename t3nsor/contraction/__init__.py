"""The product of data with a tensor network, y = x (B + W)^T + b, and the choice of strategies for its contractions.

    matmul          the product, with its checks                    plans, planner   the choice of strategies
    function        one differentiable operation, also compiled     work, device     the cost model and its coefficients
    strategy        the interface of a strategy                     explanation      the table of all strategies
    sequential, halves, materialised    the strategies              rows             rows looked up by index
    chains          products of cores                               precision        products in their operands' dtype
    network         what is needed of a tensor network              clock            the seconds of a call

To add a strategy, write one module and list it in `plans`; to add a device, add a line to `device`.
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
