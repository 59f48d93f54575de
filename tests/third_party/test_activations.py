"""Bytes kept for the backward pass: against hand counts, and against what the autograd graph itself holds."""

import pytest
import torch
from torch import nn

from tests.third_party import tiny
from tests.versions import CHECKPOINTING, checkpoint_activations
from third_party.trainers.activations import begins_layer, saved_activations


class Tower(nn.Module):
    """A stack like T5's of linears with a ReLU each, and a head: small enough to count by hand."""

    def __init__(self, width: int = 3, depth: int = 2) -> None:
        super().__init__()
        self.encoder = nn.Module()
        self.encoder.block = nn.ModuleList(nn.Sequential(nn.Linear(width, width), nn.ReLU()) for _ in range(depth))
        self.head = nn.Linear(width, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.encoder.block:
            x = block(x)
        return self.head(x)


def graph_bytes(loss: torch.Tensor, model: nn.Module) -> int:
    """Bytes of the storages that the nodes of a loss's graph hold, each once, without parameters and buffers.

    The nodes show a Python number that a tensor was multiplied by as a tensor of float64; it has no storage.
    """
    storages, nodes, waiting = {}, set(), [loss.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in nodes:
            continue
        nodes.add(node)
        waiting += [following for following, _ in node.next_functions]
        held = [getattr(node, name) for name in dir(node) if name.startswith("_saved_")]
        for values in [*held, getattr(node, "saved_tensors", ())]:
            for value in values if isinstance(values, tuple | list) else (values,):
                if isinstance(value, torch.Tensor) and not (value.dim() == 0 and value.dtype == torch.float64):
                    storages[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes()
    own = {tensor.untyped_storage().data_ptr() for tensor in [*model.parameters(), *model.buffers()]}
    return sum(size for address, size in storages.items() if address not in own)


def measured(model, batch):
    """The loss of a batch and the bytes by layer of its forward pass."""
    with saved_activations(model) as layers:
        loss = model(**batch).loss
    return loss, layers


@pytest.fixture
def batch():
    return tiny.collator()(tiny.rows(4))


@pytest.mark.parametrize(
    ("name", "begins"),
    [
        ("", False),
        ("encoder", True),
        ("encoder.block", False),
        ("encoder.block.0", True),
        ("encoder.block.0.layer.1", False),
        ("model.layers.2", True),
        ("transformer.h.11.mlp.c_fc", False),
        ("lm_head", True),
        ("lm_head.beside.tt_lora.tasks.all_tasks.linear.cores", False),
    ],
)
def test_blocks_and_parts_of_any_model_begin_a_layer(name, begins):
    assert begins_layer(name) is begins


def test_each_layer_of_a_tower_keeps_what_its_algebra_needs():
    """Rows of 3 floats: a linear that trains keeps its input, a ReLU its output, which is the next linear's input."""
    model, x = Tower(), torch.randn(5, 3)
    with saved_activations(model) as layers:
        model(x).square().sum()
    row = 5 * 3 * 4
    assert layers == {"encoder 0": 2 * row, "encoder 1": row, "loss": 5 * 2 * 4}


def test_a_frozen_linear_keeps_no_input():
    """Only its weight is needed to pass the gradient on; below the first trained layer nothing is kept at all."""
    model, x = Tower(), torch.randn(5, 3)
    model.encoder.block.requires_grad_(False)
    with saved_activations(model) as layers:
        model(x).square().sum()
    assert layers == {"head": 5 * 3 * 4, "loss": 5 * 2 * 4}


class Halves(nn.Module):
    """Scales two halves of a tensor, and a view of its own parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.part = nn.Module()
        self.part.scale = nn.Parameter(torch.ones(2, 4))
        self.part.forward = lambda x: (x[:2] * self.part.scale[0]).sum() + (x[2:] * self.part.scale[1]).sum()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.part(x)


def test_views_of_one_storage_count_once_and_parameters_not_at_all():
    with saved_activations(model := Halves()) as layers:
        model(torch.randn(4, 4))
    assert layers == {"part": 4 * 4 * 4}


@pytest.mark.parametrize("form", ["relu", "gated"])
@pytest.mark.parametrize("adapter", [None, tiny.LORA, tiny.BOTTLENECK], ids=["full", "tt_lora", "bottleneck"])
def test_the_sum_is_what_the_graph_of_a_t5_holds(bases, batch, form, adapter):
    model = tiny.adapted_model(bases[form], adapter).train()
    loss, layers = measured(model, batch)
    assert sum(layers.values()) == graph_bytes(loss, model)
    assert {"encoder 0", "encoder 1", "decoder 0", "decoder 1", "loss"} <= layers.keys()


def test_a_frozen_base_keeps_less_in_every_block(bases, batch):
    _, full = measured(tiny.adapted_model(bases["relu"], None).train(), batch)
    _, adapted = measured(tiny.adapted_model(bases["relu"], {"kind": "tt_layer_norm"}).train(), batch)
    blocks = [layer for layer in full if " " in layer]
    assert len(blocks) == 4
    assert [layer for layer in blocks if adapted[layer] >= full[layer]] == []


def test_without_gradients_nothing_is_kept(bases, batch):
    model = tiny.adapted_model(bases["relu"])
    with torch.no_grad():
        _, layers = measured(model, batch)
    assert layers == {}


@pytest.mark.parametrize("reentrant", [False, True])
def test_under_gradient_checkpointing_a_block_keeps_its_inputs(bases, batch, reentrant):
    model = tiny.adapted_model(bases["relu"], None).train()
    _, whole = measured(model, batch)
    checkpoint_activations(model, {"use_reentrant": reentrant})
    loss, layers = measured(model, batch)
    loss.backward()  # computes the blocks again, which counts nothing
    source = batch["input_ids"].numel() * tiny.SIZES["d_model"] * 4
    saver = "encoder 1" if CHECKPOINTING == "activation_checkpointing" else "encoder"
    assert layers[saver] >= source
    assert layers.get("encoder 1", 0) < whole["encoder 1"] / 3
    assert sum(layers.values()) < sum(whole.values()) / 2


def test_gradients_are_the_same_bit_for_bit_and_no_hook_stays(bases, batch):
    gradients = []
    for watch in (False, True):
        model = tiny.adapted_model(bases["dropout"], None).train()
        torch.manual_seed(3)
        loss = measured(model, batch)[0] if watch else model(**batch).loss
        loss.backward()
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
    tiny.assert_same_tensors(*gradients)
    assert [name for name, module in model.named_modules() if module._forward_hooks or module._forward_pre_hooks] == []


def test_hooks_are_gone_after_an_error(bases):
    model = tiny.adapted_model(bases["relu"])
    with pytest.raises(ValueError, match="stopped"), saved_activations(model):
        raise ValueError("stopped")
    assert [name for name, module in model.named_modules() if module._forward_hooks or module._forward_pre_hooks] == []
