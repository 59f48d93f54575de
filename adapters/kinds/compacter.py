"""Hypercomplex bottlenecks: the projections are sums of Kronecker products (``linear_forms.HypercomplexLinear``).

    y' = y + up(activation(down(y))),    down and up:  W = sum_{i=1..n} A_i (x) B_i

    phm          rules A_i (n, n) and blocks B_i (out/n, in/n) of each projection's own
                 n^3 + in out / n numbers and a bias, per projection                       (arXiv:2102.08597)
    compacter    one set of rules in the whole model, blocks B_i = s_i t_i of rank 1
                 n^3 numbers once, in + out and a bias per projection                      (arXiv:2106.04647)
    compacter++  compacter with sublayers ["feed_forward"]

``up`` starts at zero through its blocks (their left factors s_i), so the adapter starts as the identity.
"""

import math
from dataclasses import dataclass

from adapters.base.sharing import Scope
from adapters.kinds.bottleneck import BottleneckConfig
from adapters.kinds.linear_forms import BLOCKS, RULES, HypercomplexLinear


@dataclass(frozen=True, kw_only=True)
class HypercomplexConfig(BottleneckConfig, kind="phm"):
    """Projections by parameterised hypercomplex multiplication.

    Args:
        n: number of summands and size of the rules; a divisor of d_model and of the bottleneck's width.
    """

    n: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.n < 1:
            self.refuse("n", "is a whole number from 1 on", self.n, "4, 8 or 12 are usual")

    def projection(self, in_features: int, out_features: int, up: bool) -> HypercomplexLinear:
        self.check_divides(in_features, out_features)
        return HypercomplexLinear(in_features, out_features, self.n, zero=up)

    def check_divides(self, in_features: int, out_features: int) -> None:
        """Refuse an n that does not divide both sizes of a projection."""
        common = math.gcd(in_features, out_features)
        if common % self.n:
            divisors = ", ".join(str(n) for n in range(1, common + 1) if common % n == 0)
            sizes = f"{in_features} -> {out_features}"
            self.refuse("n", "divides both sizes of a projection", f"{self.n} for {sizes}", f"choose one of {divisors}")


@dataclass(frozen=True, kw_only=True)
class CompacterConfig(HypercomplexConfig, kind="compacter"):
    """Hypercomplex projections with shared rules and low-rank blocks.

    Args:
        factorized_weights: whether blocks are B_i = s_i t_i.
        rank: rank of factorised blocks (cut to the largest useful one); 1 where nothing is said.
        factorized_rules: whether rules are A_i = a_i b_i.
        rule_rank: rank of factorised rules (cut to n); 1 where nothing is said.
        shared_rules: whether there is one set of rules in the whole model, for both projections after every sublayer;
            otherwise each projection has its own.
        shared_weights: whether the blocks of all ``down`` are the same, and those of all ``up``, across layers and
            sublayers; each projection keeps its own bias.
        learnable_rules: whether rules train, or stay as drawn (they are saved in any case).
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
            if not getattr(self, factorized):
                if value is not None:
                    rule, given = f"is read where {factorized} is true", f"{value} where it is false"
                    self.refuse(key, rule, given, "drop one of the two")
            elif value is None:
                object.__setattr__(self, key, 1)
            elif value < 1:
                self.refuse(key, "is a whole number from 1 on", value, "1 is usual")

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
