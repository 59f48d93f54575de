"""The size and cost of a tensor network in place of a dense matrix, for choosing shapes and ranks.

    layer = t3.TTLinear(768, 3072, d=3, tt_rank=8, shape_mode="cheapest", device="meta")
    print(t3.describe(layer))                                  one layer, without allocating memory: 6,656 parameters
    python -m t3nsor.describe 768 3072 --rank 4 8 --d 2 3      a table with a row for each choice, by default "cheapest"

W (M, N) from cores (r_{k-1}, m_k, n_k, r_k):  parameters = sum_k r_{k-1} m_k n_k r_k,  compression = M N / parameters.
Costs are those of the product without a bias, per token, that is per vector of length N; work that depends on the cores
alone is divided among the tokens of a batch. See `t3.explain` for the gradients and for seconds.
"""

from typing import Any, NamedTuple

from ..contraction import Plan, StrategyCost, explain
from ..contraction.work import Product
from ..linear import TTLinear
from ..module import TTModule
from ..shapes import RawShape, positive_int
from ..tensor_network import TensorNetwork


class Description(NamedTuple):
    """Shapes, parameters and costs of one network; print it, or use `to_dict()`."""

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
        """The parameters of the dense matrix divided by those of the network."""
        return self.dense_parameters / self.parameters

    def to_dict(self) -> dict[str, Any]:
        """Return the description as JSON; flops and bytes are per token."""
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
            f"parameters       {self.parameters:,} of {self.dense_parameters:,}, compression {self.compression:,.1f}",
            "",
            f"{f'{self.tokens:,} tokens':<20}{'flops/token':>18}{'bytes/token':>18}{'/ dense':>16}",
        ]
        for cost in (self.dense, *self.costs):
            flops, size = cost.flops / self.tokens, cost.bytes / self.tokens
            mark = "  <- chosen" if cost.strategy == self.chosen else ""
            lines.append(
                f"{cost.strategy:<20}{flops:>18,.0f}{size:>18,.0f}{cost.flops / self.dense.flops:>16.3f}{mark}"
            )
        return "\n".join(lines)


def describe(layer: TTModule | TensorNetwork, tokens: int = 1024) -> Description:
    """Return shapes, parameters, compression and the cost of each strategy for a layer or a network.

    Args:
        layer: a layer whose weight is a network, such as a `TTLinear` (also on the meta device, where it needs no
            memory), or a network such as a `TensorTrain`. A layer's bias is not counted, neither here nor in the dense
            matrix; a basis that it shares with other layers is.
        tokens: the number of vectors in a batch.

    Raises:
        TypeError, ValueError: layer has no network, or tokens is not a positive integer.
    """
    tokens = positive_int(tokens, "tokens")
    if not isinstance(layer, TTModule | TensorNetwork):
        raise TypeError(
            f"describe needs a TT layer or a network; got a {type(layer).__name__}: "
            "pass e.g. t3.TTLinear(768, 3072, device='meta')."
        )
    plan, activation = (layer.plan, layer.core_activation) if isinstance(layer, TTLinear) else ("auto", None)
    # TTLinear.network() raises for a layer with activations between its cores
    network = layer if isinstance(layer, TensorNetwork) else TTModule.network(layer)
    parameters = network.param_count
    if network is not layer:
        of_cores = [parameter for k in range(len(network.cores)) for parameter in layer.cores.parameters_of(k)]
        parameters = sum(parameter.numel() for parameter in (*of_cores, *layer.cores.joint_parameters()))
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


def by(factors: tuple[int, ...]) -> str:
    """Return (8, 8, 12) as "8x8x12"."""
    return "x".join(map(str, factors))
