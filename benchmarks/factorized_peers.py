"""What `benchmarks.factorized` compares a network with: modules that compute y = x W^T, and the work of their steps."""

import copy

import torch.nn.functional as F
from torch import Tensor, nn

from adapters.factorized.layers import FactorizedLinear, rank_within
from t3nsor.contraction.planner import Problem
from t3nsor.contraction.plans import Plan
from t3nsor.contraction.strategy import Wanted
from t3nsor.contraction.work import Product, Work

NOT_THE_BEST = 1.5
"""A factor-wise plan with more than this multiple of the fewest operations is not timed."""


class Products(nn.Module):
    """y = x W^T with W = sum_i A_i (x) B_i, of which each product is built at every call; A (r, m1, n1), B likewise."""

    def __init__(self, A: Tensor, B: Tensor) -> None:
        super().__init__()
        self.A, self.B = nn.Parameter(A.detach().clone()), nn.Parameter(B.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        (r, m1, n1), (_, m2, n2) = self.A.shape, self.B.shape
        products = [self.A[i, :, None, :, None] * self.B[i, :, None] for i in range(r)]  # r times (m1, m2, n1, n2)
        return F.linear(x, sum(products).reshape(m1 * m2, n1 * n2))  # (T, N) x (N, M) -> (T, M)


def contenders(name: str, network: FactorizedLinear) -> dict[str, nn.Module]:
    """The network and what it is compared with, of equal values where these can represent it."""
    M, N = network.out_features, network.in_features
    found = {"network": network, "dense": network.plain()}
    A, B = network.live_cores()[0], network.live_cores()[-1]  # (1, m1, n1, r) and (r, m2, n2, 1) if there are two
    if "product" in name:
        found["products"] = Products(A[0].permute(2, 0, 1), B[..., 0])
    rank = rank_within("tensor_train", ((1, M), (N, 1)), network.spec.parameters)
    low_rank = nn.Sequential(nn.Linear(N, rank, bias=False), nn.Linear(rank, M, bias=False)).to(A.dtype)
    if name == "low rank":
        low_rank[0].weight = nn.Parameter(A[0, 0].detach().T.contiguous())  # (N, r) -> (r, N)
        low_rank[1].weight = nn.Parameter(B[:, :, 0, 0].detach().T.contiguous())  # (r, M) -> (M, r)
    return {**found, "low rank": low_rank}


def fixed_plans(problem: Problem, training: bool) -> dict[str, Plan]:
    """The plans that may be the best one: the dense matrix, and the factor-wise ones of the fewest operations."""
    common = set(problem.strategies()) & set(problem.strategies(Wanted.BOTH))
    plans = {str(strategy): Plan(strategy, strategy, strategy) for strategy in common}
    flops = {name: plan_work(plan, problem, training).flops for name, plan in plans.items()}
    most = NOT_THE_BEST * min(flops.values())
    return {name: plan for name, plan in sorted(plans.items()) if flops[name] <= most or name == "materialised"}


def with_plan(network: FactorizedLinear, plan: str) -> FactorizedLinear:
    """A copy of the network that always uses one plan."""
    fixed = copy.deepcopy(network)
    fixed.plan = plan
    return fixed


def plan_work(plan: Plan, problem: Problem, training: bool) -> Work:
    """Return the work of a step with a plan."""
    given = problem.tokens, problem.sizes, False
    work = plan.product.product_work(*given)
    if not training:
        return work
    if plan.input_gradient == plan.core_gradients:
        return work + plan.input_gradient.gradient_work(*given, Wanted.BOTH)
    work += plan.input_gradient.gradient_work(*given, Wanted.INPUT)
    return work + plan.core_gradients.gradient_work(*given, Wanted.CORES)


def contender_work(key: str, network: FactorizedLinear, problem: Problem, chosen: Plan, training: bool) -> Work:
    """Return the work of a step of a contender without a fixed plan."""
    M, N = problem.sizes.shape

    def linear(n: int, m: int) -> Work:
        T = problem.tokens
        products = Product(T, n, m), *((Product(T, m, n), Product(m, T, n)) if training else ())
        return Work(products)

    if key == "network":
        return plan_work(chosen, problem, training)
    if key == "low rank":
        rank = rank_within("tensor_train", ((1, M), (N, 1)), network.spec.parameters)
        return linear(N, rank) + linear(rank, M)
    built = 2 * network.ranks[1] if key == "products" else 0  # each product is written, and added to the others
    return linear(N, M) + Work(copies=(M * N,) * built * (2 if training else 1))
