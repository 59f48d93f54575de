"""What a tensor network in place of a dense matrix costs, for choosing shapes and ranks by eye.

    print(t3.describe(t3.TTLinear(768, 3072, d=3, tt_rank=8, device="meta")))     one choice, no memory needed for it
    python -m t3nsor.describe 768 3072 --rank 4 8 --d 2 3                         a table with a row for each choice

W (M, N) from cores (r_{k-1}, m_k, n_k, r_k):  parameters = sum_k r_{k-1} m_k n_k r_k,  compression = M N / parameters.
Costs are those of the product alone, with a bias left out, per token, that is per vector of length N: what depends on
the cores alone is shared among the tokens of a batch. See `t3.explain` for the gradients, and for seconds.
"""

from typing import Any, NamedTuple

from ..contraction import Plan, StrategyCost, explain
from ..contraction.work import Product
from ..linear import TTLinear
from ..module import TTModule
from ..shapes import RawShape, positive_int
from ..tensor_network import TensorNetwork


class Description(NamedTuple):
    """Shapes, parameters and costs of one network; print it, or take `to_dict()`."""

    shape: tuple[int, int]
    raw_shape: RawShape
    ranks: tuple[int, ...]
    core_shapes: tuple[tuple[int, ...], ...]
    parameters: int
    tokens: int
    dense: StrategyCost
    costs: tuple[StrategyCost, ...]
    chosen: str

    @property
    def dense_parameters(self) -> int:
        """M N, the parameters of the dense matrix."""
        return self.shape[0] * self.shape[1]

    @property
    def compression(self) -> float:
        """How many times fewer parameters than the dense matrix has."""
        return self.dense_parameters / self.parameters

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON; flops and bytes are per token."""
        return {
            "shape": list(self.shape),
            "raw_shape": [list(side) for side in self.raw_shape],
            "ranks": list(self.ranks),
            "core_shapes": [list(shape) for shape in self.core_shapes],
            "parameters": self.parameters,
            "dense_parameters": self.dense_parameters,
            "compression": self.compression,
            "tokens": self.tokens,
            "per_token": {
                cost.strategy: {"flops": cost.flops / self.tokens, "bytes": cost.bytes / self.tokens}
                for cost in (self.dense, *self.costs)
            },
            "chosen": self.chosen,
        }

    def __str__(self) -> str:
        (M, N), (m, n) = self.shape, self.raw_shape
        lines = [
            f"{N} -> {M} features   ({by(m)}) x ({by(n)})   ranks {', '.join(map(str, self.ranks))}",
            f"cores            {'   '.join(by(shape) for shape in self.core_shapes)}",
            f"parameters       {self.parameters:,} of {self.dense_parameters:,}, {self.compression:,.1f} times fewer",
            "",
            f"{f'{self.tokens:,} tokens':<20}{'flops/token':>18}{'bytes/token':>18}{'against dense':>16}",
        ]
        for cost in (self.dense, *self.costs):
            flops, size = cost.flops / self.tokens, cost.bytes / self.tokens
            mark = "  <- taken" if cost.strategy == self.chosen else ""
            lines.append(f"{cost.strategy:<20}{flops:>18,.0f}{size:>18,.0f}{cost.flops / self.dense.flops:>16.3f}{mark}")
        return "\n".join(lines)


def describe(layer: TTModule | TensorNetwork, tokens: int = 1024) -> Description:
    """Shapes, parameters, compression and the cost of each plan for a layer, or for a network itself.

    Args:
        layer: a layer whose weight is a network, such as a `TTLinear` (also on the meta device, where it takes no
            memory), or a `TensorTrain` or `TensorRing`. A layer's bias is not counted, here or in the dense matrix; a
            basis that it shares with others is.
        tokens: the vectors of one batch.

    Raises:
        TypeError, ValueError: layer has no network, or tokens is no positive integer.
    """
    tokens = positive_int(tokens, "tokens")
    if not isinstance(layer, TTModule | TensorNetwork):
        raise TypeError(
            f"describe takes a TT layer or a network, but a {type(layer).__name__} was given; "
            "pass e.g. t3.TTLinear(768, 3072, device='meta')."
        )
    plan, activation = (layer.plan, layer.core_activation) if isinstance(layer, TTLinear) else ("auto", None)
    # TTLinear's own network() refuses a layer with activations between its cores
    network = layer if isinstance(layer, TensorNetwork) else TTModule.network(layer)
    parameters = network.param_count
    if network is not layer:
        numbers = [parameter for k in range(len(network.cores)) for parameter in layer.cores.parameters_of(k)]
        parameters = sum(parameter.numel() for parameter in (*numbers, *layer.cores.joint_parameters()))
    M, N = network.shape
    product = Product(tokens, N, M)
    explanation = explain((tokens, N), network)
    chosen = "sequential" if activation is not None else str(explanation.plan.product)
    if plan not in ("auto", "timed"):
        chosen = str(Plan.parse(plan, len(network.cores)).product).replace("fused", "materialised")
    costs = explanation.product
    return Description(
        shape=network.shape,
        raw_shape=network.raw_shape,
        ranks=network.ranks,
        core_shapes=tuple(tuple(core.shape) for core in network.cores),
        parameters=parameters,
        tokens=tokens,
        dense=StrategyCost("dense", product.flops, product.moved * network.dtype.itemsize, 1, 0.0),
        costs=costs if activation is None else tuple(cost for cost in costs if cost.strategy == chosen),
        chosen=chosen,
    )


def by(numbers: tuple[int, ...]) -> str:
    """(8, 8, 12) as "8x8x12"."""
    return "x".join(map(str, numbers))
