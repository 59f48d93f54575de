"""Adapters whose ranks can change, adapters with fixed ranks, and a few steps of training."""

import torch

from adapters.adaptive_ranks.trains import adaptable_trains

LORA = {"kind": "tt_lora", "rank": 5, "scaling": 0.5, "shape_mode": "ascending"}
ADAPTABLE = {
    "tt_lora": LORA,
    "attentions": {"kind": "tt_lora", "rank": [3, 4, 3], "d": 4, "target_modules": ["q", "o", "wo"], "scaling": 1.0},
    "low-rank modes": {"kind": "tt_lora", "rank": 4, "modes": ["in", "in", "out", "out"], "delta_bias": "dense"},
    "tt_single": {"kind": "tt_single", "rank": 4, "scaling": -2.0},
    "tt_adapter": {"kind": "tt_adapter", "rank": 4, "reduction_factor": 2},
    "two adapters": [LORA, {"kind": "tt_single", "rank": 3, "scaling": 1.0}],
}
FIXED_RANKS = {
    "tensor_ring": ({"kind": "tt_lora", "format": "tensor_ring"}, "tensor_ring"),
    "tensor_basis": ({"kind": "tt_lora", "format": "tensor_basis"}, "tensor_basis"),
    "cp": ({"kind": "tt_lora", "format": "cp"}, "'cp'"),
    "tucker": ({"kind": "tt_lora", "format": "tucker"}, "'tucker'"),
    "principal": ({**LORA, "init": "principal"}, "difference to its initial value"),
    "shared": ({**LORA, "shared_cores": [0]}, "shared"),
    "one tensor": ({"kind": "tt_lora", "modes": ["in", "linear", "out"], "target_modules": ["q"]}, "shared"),
    "frozen": ({**LORA, "frozen_cores": [0]}, "frozen"),
    "disabled": ({**LORA, "disabled_cores": [0]}, "disabled"),
    "activation": ({**LORA, "core_activation": "gelu"}, "activation"),
    "tt bias": ({**LORA, "delta_bias": "tt"}, "bias"),
    "one core": ({"kind": "tt_lora", "d": 1}, "single core"),
    "cheapest bottleneck": ({"kind": "tt_adapter", "shape_mode": "cheapest", "reduction_factor": 2}, "cheapest"),
    "another kind": ({"kind": "bottleneck", "reduction_factor": 2}, "bottleneck"),
}


def layers_of(model):
    return [layer for group in adaptable_trains(model)[0] for layer in group.layers]


def deltas(model):
    """The dense matrices (out, in) of all trains, in float64."""
    return [layer.full().detach().double() for layer in layers_of(model)]


def steps(model, batch, optimizer, count=3):
    """Train for a few steps, and return the losses."""
    losses = []
    for _ in range(count):
        loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def adamw(model, lr=0.01):
    return torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=lr)


def parameters_at_rank_one(groups):
    return sum(group.parameters_at((1,) * len(group.ranks)) for group in groups)
