"""Products with stand-ins for stacks of expert weights, against dense weights in float64."""

import pytest
import torch
from torch import nn

from adapters.base.expert_weights import ExpertWeights
from adapters.base.experts import DeltaPerExpert
from adapters.kinds.tensor_train import TensorTrainLoRAConfig
from adapters.validation import ConfigurationError


@pytest.mark.parametrize("experts", [None, [2, 0, 2, 1, 2]])
@pytest.mark.parametrize("side", ["x first", "weights first"])
def test_batched_products_add_the_delta_of_each_row(experts, side):
    torch.manual_seed(0)
    config = TensorTrainLoRAConfig(rank=2, scaling=1.0)
    deltas = DeltaPerExpert(config.build_at_path("", 6, 10) for _ in range(3)).double()
    for parameter in deltas.parameters():
        nn.init.normal_(parameter)
    stack = torch.randn(3, 10, 6, dtype=torch.float64)
    ids = torch.arange(3) if experts is None else torch.tensor(experts)
    x = torch.randn(len(ids), 4, 6, dtype=torch.float64)
    full = stack + torch.stack([delta.delta_weight() for delta in deltas.experts])
    weights = ExpertWeights(stack, [deltas], is_transposed=False)
    weights = weights if experts is None else weights[ids]
    y = torch.bmm(x, weights.transpose(1, 2)) if side == "x first" else torch.bmm(weights, x.mT).mT
    torch.testing.assert_close(y, torch.einsum("bti,boi->bto", x, full[ids]))


@pytest.mark.parametrize(
    ("compute", "message"),
    [
        (lambda weights: torch.einsum("ti,eoi->eto", torch.ones(3, 6), weights), "calls einsum"),
        (lambda weights: weights[0], "indexes them by 0"),
        (lambda weights: weights.mT, "reads 'mT'"),
        (lambda weights: weights.transpose(0, 1), "moves the axis of the experts"),
        (lambda weights: torch.ones(3, 6) @ weights[torch.tensor(0)], "from the other side"),
        (lambda weights: nn.functional.linear(torch.ones(3, 6), weights), "another number of them"),
    ],
)
def test_computations_that_would_miss_a_delta_are_refused(compute, message):
    deltas = DeltaPerExpert(TensorTrainLoRAConfig(rank=2).build_at_path("", 6, 10) for _ in range(3))
    with pytest.raises(ConfigurationError, match=message):
        compute(ExpertWeights(torch.zeros(3, 10, 6), [deltas], is_transposed=False))
