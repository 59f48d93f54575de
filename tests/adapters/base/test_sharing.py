"""Shared parameters: against the gradients of separate copies, by counts, and after saving and loading."""

import copy
import math

import pytest
import safetensors.torch
import torch

import adapters
from adapters import AdapterConfig, ConfigurationError
from t3nsor.module import TTModule
from third_party.models.t5 import T5Config, T5ForConditionalGeneration

WI = [(1, 3, 2, 2), (2, 4, 3, 2), (2, 4, 4, 1)]  # 24 -> 48 = (3, 4, 4) x (2, 3, 4), rank 2
NORM = [(1, 2, 1, 2), (2, 3, 1, 2), (2, 4, 1, 1)]  # 24 = 2 3 4
Q = [(1, 2, 2, 2), (2, 3, 3, 2), (2, 4, 4, 1)]  # 24 -> 24
SHARE = {"kind": "tt_lora", "rank": 2, "shared_cores": [0, 1]}
SIX_Q = {**SHARE, "target_modules": ["q"]}
BLOCKS, ALL_Q, NORMS = 4, 6, 12
"""Two blocks in each stack; q of four self- and two cross-attentions; 5 norms in the encoder, 7 in the decoder."""

CASES = [
    # description, tasks, modules in all, distinct owners of each shared slot
    ({**SHARE, "target_modules": ["wi"], "share_across": ["layers"]}, [None], BLOCKS, 1),
    ({**SHARE, "target_modules": ["wi"], "share_across": ["tasks"]}, ["a", "b"], 2 * BLOCKS, BLOCKS),
    ({**SHARE, "target_modules": ["wi"], "share_across": ["layers", "tasks"]}, ["a", "b"], 2 * BLOCKS, 1),
    ({**SIX_Q, "share_across": ["layers"]}, [None], ALL_Q, 2),
    ({**SIX_Q, "share_across": ["sublayers"]}, [None], ALL_Q, BLOCKS),
    ({**SIX_Q, "share_across": ["layers", "sublayers"]}, [None], ALL_Q, 1),
    ({**SIX_Q, "target_modules": ["q", "o"], "share_across": ["projections"]}, [None], 2 * ALL_Q, ALL_Q),
    ({**SIX_Q, "target_modules": ["q", "o"], "share_across": ["layers", "projections"]}, [None], 2 * ALL_Q, 2),
    (
        {
            **SIX_Q,
            "target_modules": ["q", "k"],
            "format": "tensor_ring",
            "share_across": ["layers", "sublayers", "projections", "tasks"],
        },
        ["a", "b"],
        4 * ALL_Q,
        1,
    ),
    ({"kind": "tt_single", "rank": 2, "shared_cores": [0, 1], "share_across": ["sublayers"]}, [None], 8, BLOCKS),
    (
        {"kind": "tt_adapter", "expansion_factor": 1, "rank": 2, "shared_cores": [0], "share_across": ["projections"]},
        [None],
        16,
        8,
    ),
    (
        {"kind": "tt_layer_norm", "init": "ones", "rank": 2, "shared_cores": [1], "share_across": ["layers"]},
        [None],
        12,
        4,
    ),
    (
        {
            "kind": "tt_layer_norm",
            "init": "ones",
            "rank": 2,
            "shared_cores": [1],
            "share_across": ["layers", "sublayers"],
        },
        [None],
        NORMS,
        1,
    ),
    (
        {"kind": "tt_layer_norm", "init": "ones", "rank": 2, "shared_cores": [1, 2], "share_across": ["tasks"]},
        ["a", "b"],
        2 * NORMS,
        NORMS,
    ),
]
BASIS = {"kind": "tt_lora", "rank": 2, "format": "tensor_basis", "basis_size": 3, "target_modules": ["wi"]}
BASES = [
    (BASIS, [None], BLOCKS, 1),
    ({**BASIS, "share_across": ["tasks"]}, ["a", "b"], 2 * BLOCKS, BLOCKS),
    ({**BASIS, "share_across": ["layers", "tasks"]}, ["a", "b"], 2 * BLOCKS, 1),
    ({**BASIS, "target_modules": ["q"], "share_across": ["layers", "sublayers"]}, [None], ALL_Q, 1),
    ({**BASIS, "kind": "tt_single", "target_modules": None}, [None], 8, 2),
    ({"kind": "tt_adapter", "reduction_factor": 4, "rank": 2, "format": "tensor_basis"}, [None], 16, 4),
]
every_case = pytest.mark.parametrize(("description", "tasks", "modules", "owners"), CASES + BASES, ids=str)


def attached(model, description, tasks):
    if description.get("target_modules", 0) is None:
        description = {key: value for key, value in description.items() if key != "target_modules"}
    for task in tasks:
        adapters.attach(model, description, task)
    return model


def layers_of(model):
    """The layers with cores by path, without biases."""
    return {path: m for path, m in model.named_modules() if isinstance(m, TTModule) and m.shareable()}


def unshared(model):
    """The same model with a separate copy of each shared parameter in each of its places."""
    alone = copy.deepcopy(model)
    for layer in layers_of(alone).values():
        for slot in list(layer.cores._borrowed):
            value = layer.cores.read(slot).detach().clone()
            places, k = layer.cores._entry(slot)
            places[k] = torch.nn.Parameter(value)
            del layer.cores._borrowed[slot]
    alone.shared_parameters.clear()
    return alone


def backward(model, batch, tasks):
    for task in tasks:
        adapters.set_active_task(model, task)
        model(**batch).loss.backward()


@every_case
def test_shared_gradient_is_the_sum_of_the_gradients_of_separate_copies(
    tiny_t5, batch, trained, description, tasks, modules, owners
):
    model = trained(attached(tiny_t5(), description, tasks)).double()
    alone = unshared(model)
    backward(model, batch, tasks)
    backward(alone, batch, tasks)
    layers, copies = layers_of(model), layers_of(alone)
    assert layers.keys() == copies.keys()
    assert len(layers) == modules
    sums = {name: torch.zeros_like(parameter) for name, parameter in model.shared_parameters.items()}
    for path, layer in layers.items():
        for slot, (_, key) in layer.cores._borrowed.items():
            sums[key] += copies[path].cores.read(slot).grad
    for key, parameter in model.shared_parameters.items():
        assert sums[key].any()
        torch.testing.assert_close(parameter.grad, sums[key], rtol=1e-8, atol=1e-12)
    for name, parameter in alone.named_parameters():
        if parameter.grad is not None and name in dict(model.named_parameters()):
            torch.testing.assert_close(model.get_parameter(name).grad, parameter.grad, rtol=1e-8, atol=1e-12)


@every_case
def test_shared_parameters_exist_once_and_the_count_is_the_closed_form(tiny_t5, description, tasks, modules, owners):
    model = attached(tiny_t5(), description, tasks)
    config = AdapterConfig.from_dict({k: v for k, v in description.items() if v is not None})
    names = [name for name, _ in model.named_parameters(remove_duplicate=False)]
    assert len(names) == len(set(names)) + names.count("shared.weight") - 1
    numbers = own = 0
    for layer in layers_of(model).values():
        for k, shape in enumerate(layer.core_shapes):
            if config.kind != "tt_layer_norm" and config.format == "tensor_basis":
                own += config.basis_size
            elif k not in config.shared_cores:
                own += math.prod(shape)
    for slot in config.shared_slots():
        of_slot = [p for key, p in model.shared_parameters.items() if key.endswith(f"-{slot}")]
        assert len(of_slot) == owners or config.kind == "tt_adapter"
        numbers += sum(parameter.numel() for parameter in of_slot)
    assert len(model.shared_parameters) == owners * len(config.shared_slots())
    counts = adapters.summary(model)
    assert counts.total.trainable == own + numbers
    shared_group = f"{config.kind}, shared across {', '.join(config.share_across)}"
    assert counts.groups[shared_group].parameters == numbers
    assert counts.groups.get(config.kind, adapters.summary(tiny_t5()).total).trainable == own


@pytest.mark.parametrize(
    ("description", "numbers"),
    [
        (CASES[0][0], math.prod(WI[0]) + math.prod(WI[1]) + 4 * math.prod(WI[2])),
        (CASES[5][0], math.prod(Q[0]) + math.prod(Q[1]) + 6 * math.prod(Q[2])),
        (CASES[12][0], 12 * (math.prod(NORM[0]) + math.prod(NORM[2])) + math.prod(NORM[1])),
        (BASES[0][0], 3 * sum(map(math.prod, WI)) + 4 * 3 * 3),
        (BASES[3][0], 3 * sum(map(math.prod, Q)) + 6 * 3 * 3),
        ({**BASIS, "disabled_cores": [1]}, 3 * (math.prod(WI[0]) + math.prod(WI[2])) + 4 * 2 * 3),
        ({**BASIS, "format": "tensor_ring", "basis_size": None}, 4 * (2 * 6 * 2 + 2 * 12 * 2 + 2 * 16 * 2)),
    ],
    ids=str,
)
def test_parameter_counts(tiny_t5, description, numbers):
    assert adapters.summary(adapters.attach(tiny_t5(), description)).total.trainable == numbers


@pytest.mark.parametrize(
    ("description", "tasks", "modules", "owners"),
    [CASES[2], CASES[8], CASES[10], CASES[12], BASES[1], BASES[5]],
    ids=["layers and tasks", "a ring, all scopes", "a bottleneck", "norms", "bases of tasks", "bases of a bottleneck"],
)
def test_saving_loading_and_copying_keep_the_sharing(
    tiny_t5, trained, logits, tmp_path, description, tasks, modules, owners
):
    model = trained(attached(tiny_t5(), description, tasks))
    adapters.save(model, tmp_path / "adapter")
    model.save_pretrained(tmp_path / "whole")
    others = {
        "loaded": adapters.load(tiny_t5(), tmp_path / "adapter"),
        "copied": copy.deepcopy(model),
        "whole": T5ForConditionalGeneration.from_pretrained(tmp_path / "whole").eval(),
    }
    for how, other in others.items():
        assert list(other.shared_parameters) == list(model.shared_parameters), how
        assert all(p.requires_grad for p in other.shared_parameters.values()), how
        for task in tasks:
            adapters.set_active_task(other, task)
            adapters.set_active_task(model, task)
            assert torch.equal(logits(other), logits(model)), how
        with torch.no_grad():
            for parameter in other.shared_parameters.values():
                parameter.add_(1.0)
        assert not torch.equal(logits(other), logits(model)), how


TASK_MODE = {"kind": "tt_lora", "rank": 2, "modes": ["in", "layer", "task", "out"], "target_modules": ["q", "v"]}
ACROSS_TASKS = [
    {**SHARE, "share_across": ["layers", "tasks"], "delta_bias": "tt"},
    {**SHARE, "shared_cores": [1, 2], "share_across": ["tasks"]},
    {**SHARE, "shared_cores": [2], "share_across": ["tasks"], "format": "tensor_ring"},
    {**BASIS, "share_across": ["layers", "tasks"]},
    {"kind": "tt_single", "rank": 2, "shared_cores": [0, 2], "share_across": ["layers", "sublayers", "tasks"]},
    {
        "kind": "tt_adapter",
        "reduction_factor": 4,
        "rank": 2,
        "shared_cores": [0, 2],
        "share_across": ["tasks"],
        "delta_bias": "tt",
    },
]


@pytest.mark.parametrize("description", ACROSS_TASKS, ids=str)
def test_second_task_reuses_the_core_of_the_first_and_starts_at_the_base(tiny_t5, logits, trained, description):
    base = logits(tiny_t5())
    model = trained(adapters.attach(tiny_t5(), description, "a"))
    before = {key: (p, p.detach().clone()) for key, p in model.shared_parameters.items()}
    adapters.set_active_task(model, "a")
    first = logits(model)
    assert not torch.equal(first, base)
    adapters.attach(model, description, "b")
    assert list(model.shared_parameters) == list(before)
    for key, (parameter, value) in before.items():
        assert model.shared_parameters[key] is parameter
        assert torch.equal(parameter, value)
    assert torch.equal(logits(model), first)
    adapters.set_active_task(model, "b")
    assert torch.equal(logits(model), base)


@pytest.mark.parametrize("description", [ACROSS_TASKS[0], ACROSS_TASKS[3], TASK_MODE], ids=str)
def test_task_missing_from_a_checkpoint_is_initialised_without_changing_the_others(
    tiny_t5, logits, trained, tmp_path, description
):
    model = trained(adapters.attach(tiny_t5(), description, "a"))
    model.save_pretrained(tmp_path)
    adapters.set_active_task(model, "a")
    config = T5Config.from_pretrained(tmp_path)
    config.adapters = [*config.adapters, {"task": "b", "config": config.adapters[0]["config"]}]
    both = T5ForConditionalGeneration.from_pretrained(tmp_path, config=config).eval()
    adapters.set_active_task(both, "a")
    assert torch.equal(logits(both), logits(model))
    adapters.set_active_task(both, "b")
    assert torch.equal(logits(both), logits(tiny_t5()))


def test_checkpoint_without_the_shared_parameters_raises(tiny_t5, trained, tmp_path):
    trained(adapters.attach(tiny_t5(), {**SHARE, "target_modules": ["wi"]})).save_pretrained(tmp_path)
    tensors = safetensors.torch.load_file(tmp_path / "model.safetensors")
    del tensors["shared_parameters.tt_lora-all_tasks-feed_forward-wi-linear-1"]
    safetensors.torch.save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(OSError, match=r"completely or not at all; got .* lacks 'shared_parameters\.tt_lora-"):
        T5ForConditionalGeneration.from_pretrained(tmp_path)


def test_biases_are_not_shared(tiny_t5):
    model = adapters.attach(
        tiny_t5(),
        {**SHARE, "delta_bias": "tt", "share_across": ["layers", "projections", "sublayers"], "target_modules": ["q"]},
    )
    biases = [name for name, _ in model.named_parameters() if ".bias.cores." in name]
    assert len(biases) == 6 * 3
    assert not any("bias" in key for key in model.shared_parameters)


def test_wi_and_wo_share_a_core_of_equal_factors(tiny_t5, batch):
    description = {"kind": "tt_lora", "rank": 2, "shared_cores": [0], "share_across": ["layers", "projections"]}
    with pytest.raises(ConfigurationError) as refusal:
        adapters.attach(tiny_t5(), description)
    assert "raw_shape [[4, 3, 4], [4, 2, 3]]" in str(refusal.value)
    model = adapters.attach(tiny_t5(), {**description, "raw_shape": [[4, 3, 4], [4, 2, 3]]})
    assert [tuple(p.shape) for p in model.shared_parameters.values()] == [(1, 4, 4, 2)]
    layers = layers_of(model)
    assert {layer.raw_shape for layer in layers.values()} == {((4, 3, 4), (4, 2, 3)), ((4, 2, 3), (4, 3, 4))}
    assert len(layers) == 8


@pytest.mark.parametrize("sizes", [(48, 24), (3072, 768), (2048, 512), (36, 6)])
@pytest.mark.parametrize(("d", "shared"), [(2, [1]), (3, [0]), (3, [0, 2]), (4, [1, 2, 3])])
def test_suggested_shape_has_equal_factors_in_shared_cores(sizes, d, shared):
    config = AdapterConfig.from_dict({"kind": "tt_lora", "d": d, "shared_cores": shared})
    rows, columns = config.shareable_raw_shape(*sizes)
    assert (math.prod(rows), math.prod(columns)) == sizes
    assert len(rows) == len(columns) == d
    assert all(rows[k] == columns[k] for k in shared)


@pytest.mark.parametrize(
    ("description", "named"),
    [
        ({"kind": "tt_lora", "shared_cores": [0, 1, 2], "share_across": ["tasks"]}, ["'shared_cores'", "[0, 1, 2]"]),
        ({**SHARE, "frozen_cores": [2], "share_across": ["layers", "tasks"]}, ["'shared_cores'", "starts at zero"]),
        ({**SHARE, "share_across": ["layer"]}, ["'share_across'", "'layers'"]),
        ({**SHARE, "share_across": []}, ["'share_across'", "empty"]),
        ({"kind": "tt_lora", "share_across": ["tasks"]}, ["'share_across'", "['tasks']", "shared_cores"]),
        ({"kind": "tt_layer_norm", "share_across": ["tasks"]}, ["'share_across'", "shared_cores"]),
        ({"kind": "tt_layer_norm", "share_across": ["projections"]}, ["'share_across'", "'sublayers'"]),
        (
            {"kind": "tt_single", "shared_cores": [0], "share_across": ["projections"]},
            ["'share_across'", "'sublayers'"],
        ),
        ({**BASIS, "shared_cores": [0]}, ["'shared_cores'", "tensor_basis", "[0]"]),
        ({"kind": "tt_lora", "basis_size": 4}, ["'basis_size'", "tensor_train"]),
        ({**BASIS, "basis_size": 0}, ["'basis_size'", "0"]),
        ({**BASIS, "format": "tensor_basics"}, ["'format'", "'tensor_basics'", "'tensor_basis'"]),
        ({**BASIS, "format": ["tensor_basis"]}, ["'format'"]),
        ({"kind": "tt_layer_norm", "format": "tensor_ring"}, ["'format'"]),
        ({"kind": "tt_lora", "format": "tensor_ring", "rank": [2, 2]}, ["'rank'", "r_0, r_1, r_2", "[2, 2]"]),
    ],
    ids=str,
)
def test_invalid_sharing_raises_with_its_key(description, named):
    with pytest.raises(ConfigurationError) as refusal:
        AdapterConfig.from_dict(description)
    assert all(name in str(refusal.value) for name in named), str(refusal.value)
    assert str(refusal.value).endswith(".")


def test_basis_across_layers_of_unequal_sizes_raises(tiny_t5, snapshot):
    model = tiny_t5()
    before = snapshot(model)
    with pytest.raises(ConfigurationError, match=r"'share_across' .* one shape across layers, projections"):
        adapters.attach(model, {**BASIS, "target_modules": ["wi", "wo"], "share_across": ["layers", "projections"]})
    assert snapshot(model) == before
