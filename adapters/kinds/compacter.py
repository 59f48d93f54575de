"""phm and compacter: bottlenecks whose projections are sums of Kronecker products (``HypercomplexLinear``).

    y' = y + up(activation(down(y)))        down and up: W = sum_{i=1..n} A_i (x) B_i

    phm            each projection has its own rules A_i (n, n) and blocks B_i (out/n, in/n):
                   n^3 + in out / n parameters and a bias per projection                      (arXiv:2102.08597)
    compacter      one set of rules for the whole model, blocks B_i = s_i t_i of rank 1:
                   n^3 parameters once, in + out and a bias per projection                    (arXiv:2106.04647)
    compacter++    compacter with sublayers ["feed_forward"]

``up`` starts at zero through its blocks (or their left factors s_i), so the adapter starts as the identity.
"""

import math
from dataclasses import dataclass

from adapters.base.sharing import Scope
from adapters.kinds.bottleneck import BottleneckConfig
from adapters.kinds.linear_forms import BLOCKS, RULES, HypercomplexLinear


@dataclass(frozen=True, kw_only=True)
class HypercomplexConfig(BottleneckConfig, kind="phm"):
    """A bottleneck after each sublayer whose projections are made by parameterised hypercomplex multiplication.

    Args:
        n: the number of summands and the size of the rules; a divisor of d_model and of the bottleneck's width.
    """

    n: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_positive("n", "4, 8 or 12")

    def projection(self, in_features: int, out_features: int, up: bool) -> HypercomplexLinear:
        self.check_divides(in_features, out_features)
        return HypercomplexLinear(in_features, out_features, self.n, zero=up)

    def check_divides(self, in_features: int, out_features: int) -> None:
        """Raise ConfigurationError unless n divides both sizes of a projection."""
        common = math.gcd(in_features, out_features)
        if common % self.n:
            divisors = ", ".join(str(n) for n in range(1, common + 1) if common % n == 0)
            sizes = f"{in_features} -> {out_features}"
            rule = "must divide both sizes of a projection"
            self.refuse("n", rule, f"{self.n} for {sizes}", f"choose one of {divisors}")


@dataclass(frozen=True, kw_only=True)
class CompacterConfig(HypercomplexConfig, kind="compacter"):
    """A bottleneck after each sublayer, hypercomplex with shared rules and low-rank blocks.

    Args:
        factorized_weights: whether blocks are products B_i = s_i t_i.
        rank: the rank of factorised blocks (clipped to the largest useful one); 1 by default.
        factorized_rules: whether rules are products A_i = a_i b_i.
        rule_rank: the rank of factorised rules (clipped to n); 1 by default.
        shared_rules: whether the whole model has one set of rules, or each projection its own.
        shared_weights: whether all ``down`` share their blocks, and all ``up``, across layers and sublayers; biases are
            never shared.
        learnable_rules: whether rules train, or keep their random initial value; they are saved in any case.
    """

    factorized_weights: bool = True
    rank: int | None = None
    factorized_rules: bool = False
    rule_rank: int | None = None
    shared_rules: bool = True
    shared_weights: bool = False
    learnable_rules: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        for key, factorized in (("rank", "factorized_weights"), ("rule_rank", "factorized_rules")):
            value = getattr(self, key)
            self.check_positive(key, "1")
            if getattr(self, factorized):
                self._set(**{key: 1 if value is None else value})
            elif value is not None:
                rule = f"applies only if {factorized} is true"
                self.refuse(key, rule, f"{value} with {factorized} false", "drop one of the two")

    def shared_slots(self) -> dict[int | str, frozenset[Scope]]:
        rules = dict.fromkeys(RULES, frozenset({"layers", "sublayers", "projections"}))
        blocks = dict.fromkeys(BLOCKS, frozenset({"layers", "sublayers"}))
        return (rules if self.shared_rules else {}) | (blocks if self.shared_weights else {})

    def projection(self, in_features: int, out_features: int, up: bool) -> HypercomplexLinear:
        self.check_divides(in_features, out_features)
        return HypercomplexLinear(
            in_features,
            out_features,
            self.n,
            rank=self.rank,
            rule_rank=self.rule_rank,
            learnable_rules=self.learnable_rules,
            zero=up,
        )
