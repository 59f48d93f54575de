"""Linear forms of the projections of a bottleneck: x (..., in) -> y = x W^T + b (..., out), in the dtype of x.

    dense           W itself                                                 DenseLinear
    tensor train    W = the matrix of cores (r_{k-1}, m_k, n_k, r_k)         t3nsor.TTLinear
    low rank        W = U V, the two-core train of (1, out) x (in, 1)        t3nsor.TTLinear, see ``low_rank_linear``
    hypercomplex    W = sum_i A_i (x) B_i, the two-core train of rank n      HypercomplexLinear
                    of (n, out/n) x (n, in/n); (x) is the Kronecker product

Factors of the hypercomplex form (Zhang et al. 2021, arXiv:2102.08597, eq. 3; Karimi Mahabadi et al. 2021,
arXiv:2106.04647, eq. 6 and section 3.2), i = 1..n:

    rules     A_i (n, n)            or factorised    A_i = a_i b_i,    a_i (n, rule_rank),    b_i (rule_rank, n)
    blocks    B_i (out/n, in/n)     or factorised    B_i = s_i t_i,    s_i (out/n, rank),     t_i (rank, in/n)
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import t3nsor as t3
from adapters.base.sharing import Borrower
from t3nsor.contraction import contract

RULES = ("rules", "rules_left", "rules_right")
"""Parameter names of the rules of a HypercomplexLinear: whole, or as two factors."""
BLOCKS = ("blocks", "blocks_left", "blocks_right")
"""Parameter names of its blocks, likewise."""


class DenseLinear(nn.Linear):
    """nn.Linear in the dtype of x; W starts Glorot-normal (Glorot & Bengio 2010) or at zero, the bias at zero."""

    def __init__(self, in_features: int, out_features: int, zero: bool = False) -> None:
        self.zero = zero
        super().__init__(in_features, out_features, dtype=torch.float32)

    def reset_parameters(self) -> None:
        if self.zero:
            nn.init.zeros_(self.weight)
        else:
            nn.init.xavier_normal_(self.weight)
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.to(x.dtype), self.bias.to(x.dtype))  # (..., in) -> (..., out)


def low_rank_linear(in_features: int, out_features: int, rank: int, zero: bool = False) -> t3.TTLinear:
    """Build W = U V with a dense bias: the train of cores V^T (1, 1, in, rank) and U (rank, out, 1, 1).

    Args:
        rank: clipped to the largest useful one, min(in, out).
        zero: whether U, and thus W, starts at zero.
    """
    return t3.TTLinear(
        in_features,
        out_features,
        raw_shape=((1, out_features), (in_features, 1)),
        tt_rank=rank,
        zero_core=1 if zero else None,
        dtype=torch.float32,
    )


class HypercomplexLinear(Borrower):
    """y = x W^T + b with W = sum_i A_i (x) B_i, float32; all its tensors but the bias can be shared.

    At the start Var[A_i] = 1/n for layers of all sizes, so that they can share rules, and Var[B_i] = 2 / (in + out):
    then Var[W] = n Var[A_i] Var[B_i] is Glorot's. The bias starts at zero.

    Args:
        in_features, out_features: the last dimensions of x and y, both multiples of n.
        n: the number of summands and the size of the rules.
        rank: rank of the factorised blocks, clipped to the largest useful one; None for unfactorised blocks.
        rule_rank: rank of the factorised rules, likewise.
        learnable_rules: whether the rules train; they are in the state_dict in any case.
        zero: whether W starts at zero, through the blocks or their left factors.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        n: int,
        rank: int | None = None,
        rule_rank: int | None = None,
        learnable_rules: bool = True,
        zero: bool = False,
    ) -> None:
        super().__init__()
        self.in_features, self.out_features, self.n = in_features, out_features, n
        self.learnable_rules = learnable_rules
        self.zero = zero
        self.rule_names = self._make_stack(RULES, n, n, rule_rank, learnable_rules)
        self.block_names = self._make_stack(BLOCKS, out_features // n, in_features // n, rank, True)
        self.shareable_names = (*self.rule_names, *self.block_names)
        self.bias = nn.Parameter(torch.empty(out_features, dtype=torch.float32))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Redraw the initial values in place, including those of shared tensors."""
        self._draw(self.rule_names, self.n**-0.5)
        self._draw(self.block_names, (2 / (self.in_features + self.out_features)) ** 0.5)
        if self.zero:
            self.live(self.block_names[0]).zero_()
        self.bias.zero_()

    def network(self) -> t3.TensorTrain:
        """Return W as a train of cores (1, n, n, n) and (n, out/n, in/n, 1), differentiable in the parameters."""
        return t3.from_kronecker(self._stack(self.rule_names), self._stack(self.block_names))

    def full(self) -> Tensor:
        """Return W (out, in), differentiable in the parameters."""
        return self.network().full()

    def forward(self, x: Tensor) -> Tensor:
        return t3.matmul(x, self.network(), bias=self.bias)  # (..., in) -> (..., out)

    def frozen_parameters(self) -> dict[nn.Parameter, str]:
        """Return the parameters that do not train, each with the reason."""
        if self.learnable_rules:
            return {}
        return dict.fromkeys(map(self.live, self.rule_names), "fixed rule of an adapter")

    def extra_repr(self) -> str:
        shapes = {name: tuple(tensor.shape) for name, tensor in self.shareable().items()}
        return f"{self.in_features}, {self.out_features}, n={self.n}, {shapes}"

    def _make_stack(
        self, names: tuple[str, str, str], rows: int, columns: int, rank: int | None, trainable: bool
    ) -> tuple[str, ...]:
        """Register n matrices (rows, columns), whole or as two factors, and return their parameter names."""
        whole, left, right = names
        shapes = {whole: (self.n, rows, columns)}
        if rank is not None:
            rank = min(rank, rows, columns)
            shapes = {left: (self.n, rows, rank), right: (self.n, rank, columns)}
        for name, shape in shapes.items():
            self.register_parameter(name, nn.Parameter(torch.empty(shape, dtype=torch.float32), trainable))
        return tuple(shapes)

    def _draw(self, names: Sequence[str], std: float) -> None:
        """Draw a stack of matrices whose entries have the standard deviation ``std``."""
        tensors = [self.live(name) for name in names]
        if len(tensors) == 2:
            std = (std / tensors[0].shape[2] ** 0.5) ** 0.5  # Var[entry] = rank * Var[left] * Var[right]
        for tensor in tensors:
            nn.init.normal_(tensor, std=std)

    def _stack(self, names: Sequence[str]) -> Tensor:
        """Return the n matrices of a stack, (n, rows, columns)."""
        tensors = [self.live(name) for name in names]
        return tensors[0] if len(tensors) == 1 else contract("ipr,irq->ipq", *tensors)  # (n, p, r) x (n, r, q)
