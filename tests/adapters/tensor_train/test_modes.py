"""Modes against the tensors of the papers, computed densely over all sites of a model.

cores of the oracle   one tensor per mode: features (r, f, s), sites (r, S, s) with all slices stacked
"""

import copy
import itertools
import math
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import adapters
from adapters import AdapterConfig, ConfigurationError
from adapters.tensor_train.modes import INDEXED_BY, shape_of_modes
from third_party.models.t5 import T5ForConditionalGeneration

D = 24
QV = {"kind": "tt_lora", "target_modules": ["q", "v"], "scaling": 0.5}
IN_OUT = [[1, 1, 1, D], [D, 1, 1, 1]]


@dataclass(frozen=True)
class Linear:
    """One adapted linear: its path, and its index in each site mode."""

    path: str
    layer: str
    matrix: str

    def index(self, mode, task):
        linear = f"{self.layer}-{self.matrix}"
        return {"layer": self.layer, "matrix": self.matrix, "linear": linear, "task": task}[mode]


def linears():
    found = []
    for stack, block in itertools.product(("encoder", "decoder"), (0, 1)):
        inner = {"encoder": ["SelfAttention"], "decoder": ["SelfAttention", "EncDecAttention"]}[stack]
        for position, attention in enumerate(inner):
            for name in ("q", "v"):
                path = f"{stack}.block.{block}.layer.{position}.{attention}.{name}"
                kind = {"SelfAttention": "self_attention", "EncDecAttention": "cross_attention"}[attention]
                found.append(Linear(path, f"{stack}-{block}", f"{kind}-{name}-linear"))
    return found


TENSORS = {
    # name: fields, tasks, trainable parameters in closed form (D = 24, r = 3, 4 layers, 4 kinds of matrix, 12 linears)
    "metatt-4d": ({"modes": ["in", "layer", "matrix", "out"], "rank": 3}, [None], 2 * D * 3 + (4 + 4) * 3**2),
    "metatt-5d": (
        {
            "modes": ["in", "layer", "matrix", "out", "out"],
            "rank": 3,
            "raw_shape": [[1, 1, 1, 4, 6], [24, 1, 1, 1, 1]],
        },
        [None],
        (D + 6) * 3 + (4 + 4 + 4) * 3**2,
    ),
    "metatt-4d with tasks": (
        {"modes": ["in", "layer", "task", "matrix", "out"], "rank": 3},
        ["a", "b"],
        2 * D * 3 + (4 + 2 + 4) * 3**2,
    ),
    "lotr": ({"modes": ["in", "linear", "out"], "rank": 3}, [None], 2 * D * 3 + 12 * 3**2),
    "lotr with tasks": (
        {"modes": ["in", "task", "linear", "out"], "rank": [2, 2, 2]},
        ["a", "b"],
        2 * D * 2 + (2 + 12) * 4,
    ),
    "a ring of sites": (
        {"modes": ["layer", "in", "matrix", "out"], "rank": 2, "format": "tensor_ring"},
        [None],
        (4 + D + 4 + D) * 2**2,
    ),
    "lorta": (
        {
            "modes": ["in", "out", "out", "layer", "matrix"],
            "format": "cp",
            "rank": 5,
            "raw_shape": [[1, 4, 6, 1, 1], [24, 1, 1, 1, 1]],
            "zero_core": 2,
        },
        [None],
        5 * (D + 4 + 6 + 4 + 4),
    ),
    "cp with tasks": (
        {"modes": ["linear", "in", "out", "task"], "format": "cp", "rank": 5},
        ["a", "b"],
        5 * (12 + 2 * D + 2),
    ),
    "a site at an end": (
        {"modes": ["layer", "in", "out", "matrix"], "rank": 3},
        [None],
        4 * 3 + 2 * D * 3**2 + 4 * 3,
    ),
    "ranks that one matrix could not use": (
        {"modes": ["in", "layer", "matrix", "out"], "rank": [2, 7, 4]},
        [None],
        D * 2 + 4 * 2 * 7 + 4 * 7 * 4 + 4 * D,
    ),
    "interleaved": (
        {"modes": ["out_in", "layer", "out_in"], "rank": 3, "raw_shape": [[4, 1, 6], [6, 1, 4]]},
        [None],
        (24 + 24) * 3 + 4 * 9,
    ),
}
every_tensor = pytest.mark.parametrize("name", TENSORS)


def attached(model, name, **more):
    fields, tasks, _ = TENSORS[name]
    for task in tasks:
        adapters.attach(model, {**QV, **fields, **more}, task)
    return model


def layer_at(model, path, task):
    return model.get_submodule(path).beside["tt_lora"].tasks[task or "all_tasks"].linear


class Oracle:
    """The tensor of a model as leaves for autograd, one per mode, stacked from the slices of its layers."""

    def __init__(self, model, name):
        fields, self.tasks, _ = TENSORS[name]
        self.modes, self.rows, self.is_cp = fields["modes"], {}, fields.get("format") == "cp"
        self.leaves = []
        for k, mode in enumerate(self.modes):
            indices = {linear.index(mode, task) if mode in INDEXED_BY else "": (linear.path, task)
                       for linear, task in itertools.product(linears(), self.tasks)}  # fmt: skip
            self.rows[k] = {index: row for row, index in enumerate(indices)}
            slices = [layer_at(model, path, task).cores.read(k) for path, task in indices.values()]
            self.leaves.append(torch.stack(slices).detach().clone().requires_grad_())  # (S, r, m, n, s); (S, m, n, r)

    def delta(self, linear, task):
        """s T of one linear, (out, in), by definition."""
        operands, d = [], len(self.modes)
        for k, mode in enumerate(self.modes):
            row = self.rows[k][linear.index(mode, task) if mode in INDEXED_BY else ""]
            bonds = ([], [0]) if self.is_cp else ([k], [(k + 1) % d])
            operands += [self.leaves[k][row], [*bonds[0], d + k, 2 * d + k, *bonds[1]]]
        return QV["scaling"] * torch.einsum(*operands, list(range(d, 3 * d))).reshape(D, D)

    def model_of(self, base, task):
        """A function from a batch to the outputs of the base with dense weights W + s T."""
        weights = {f"{linear.path}.weight": base.get_parameter(f"{linear.path}.weight") for linear in linears()}
        changed = {
            f"{linear.path}.weight": weights[f"{linear.path}.weight"].detach() + self.delta(linear, task)
            for linear in linears()
        }
        return lambda batch: torch.func.functional_call(base, changed, kwargs=batch)


@pytest.fixture
def scrambled(tiny_t5, trained):
    """A function from a name to the adapted model in float64, all its adapter tensors random."""
    return lambda name: trained(attached(tiny_t5(), name)).double()


@every_tensor
def test_the_model_equals_the_dense_formula_merged_and_unmerged(tiny_t5, scrambled, batch, logits, name):
    model, base = scrambled(name), tiny_t5().double()
    oracle = Oracle(model, name)
    for task in oracle.tasks:
        adapters.set_active_task(model, task)
        expected = oracle.model_of(base, task)(batch).logits
        torch.testing.assert_close(logits(model), expected, rtol=1e-9, atol=1e-9)
        assert not torch.allclose(logits(model), logits(base), rtol=1e-3, atol=1e-3)
        with adapters.merged(model):
            torch.testing.assert_close(logits(model), expected, rtol=1e-9, atol=1e-9)
            for linear in linears():
                change = model.get_parameter(f"{linear.path}.weight") - base.get_parameter(f"{linear.path}.weight")
                torch.testing.assert_close(change, oracle.delta(linear, task), rtol=1e-9, atol=1e-9)


@every_tensor
def test_the_gradient_of_a_slice_is_the_sum_over_its_places(tiny_t5, scrambled, batch, name):
    model, base = scrambled(name), tiny_t5().double()
    oracle = Oracle(model, name)
    for task in oracle.tasks:
        adapters.set_active_task(model, task)
        model(**batch).loss.backward()
        oracle.model_of(base, task)(batch).loss.backward()
    for k, mode in enumerate(oracle.modes):
        for linear, task in itertools.product(linears(), oracle.tasks):
            row = oracle.rows[k][linear.index(mode, task) if mode in INDEXED_BY else ""]
            given_slice = layer_at(model, linear.path, task).cores.read(k)
            assert oracle.leaves[k].grad[row].any()
            torch.testing.assert_close(given_slice.grad, oracle.leaves[k].grad[row], rtol=1e-8, atol=1e-10)


@every_tensor
def test_the_parameter_count_is_the_closed_form_and_every_tensor_exists_once(tiny_t5, name):
    model = attached(tiny_t5(), name)
    counts = adapters.summary(model)
    assert counts.total.trainable == TENSORS[name][2]
    assert sum(group.trainable for group in counts.groups.values()) == TENSORS[name][2]
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert len({parameter.data_ptr() for parameter in trainable}) == len(trainable)


@every_tensor
def test_step_0_equals_the_base_model_and_the_zero_core_has_a_gradient(tiny_t5, batch, logits, name):
    base, model = tiny_t5(), attached(tiny_t5(), name)
    for task in TENSORS[name][1]:
        adapters.set_active_task(model, task)
        assert torch.equal(logits(model), logits(base))
        model(**batch).loss.backward()
    at_zero = adapters.attachments(model)[0].config.core_at_zero
    for linear, task in itertools.product(linears(), TENSORS[name][1]):
        cores = layer_at(model, linear.path, task).cores
        assert [not cores.read(k).any() for k in range(len(cores))] == [k == at_zero for k in range(len(cores))]
        assert cores.read(at_zero).grad.any()


@pytest.mark.parametrize("zero_core", [0, 1, 2, -1])
def test_any_core_can_start_at_zero(tiny_t5, batch, logits, zero_core):
    model = attached(tiny_t5(), "metatt-4d", zero_core=zero_core)
    assert torch.equal(logits(model), logits(tiny_t5()))
    layer = layer_at(model, linears()[0].path, None)
    assert [not core.any() for core in layer.live_cores()] == [k == zero_core % 4 for k in range(4)]
    model(**batch).loss.backward()
    assert all(layer_at(model, linear.path, None).cores.read(zero_core % 4).grad.any() for linear in linears())


@pytest.mark.parametrize("name", ["metatt-4d with tasks", "lotr with tasks", "metatt-4d"])
def test_a_second_task_starts_at_the_base_model_and_does_not_change_the_first(tiny_t5, trained, logits, name):
    description = {**QV, **TENSORS[name][0]}
    base = logits(tiny_t5())
    model = trained(adapters.attach(tiny_t5(), description, "first"))
    adapters.set_active_task(model, "first")
    before = logits(model)
    assert not torch.equal(before, base)
    own = sum(parameter.numel() for parameter in model.shared_parameters.values())
    adapters.attach(model, description, "second")
    assert torch.equal(logits(model), before)
    adapters.set_active_task(model, "second")
    assert torch.equal(logits(model), base)
    rank = layer_at(model, linears()[0].path, "second").ranks[1]
    added = sum(parameter.numel() for parameter in model.shared_parameters.values()) - own
    assert added == (rank**2 if "task" in description["modes"] else own)


@pytest.mark.parametrize("name", ["metatt-4d with tasks", "a ring of sites", "cp with tasks", "interleaved"])
def test_saved_adapters_models_and_copies_restore_it_with_each_tensor_once(tiny_t5, trained, logits, tmp_path, name):
    model = trained(attached(tiny_t5(), name))
    adapters.save(model, tmp_path / "adapter")
    model.save_pretrained(tmp_path / "whole")
    state = adapters.adapter_state_dict(model)
    assert sum(tensor.numel() for tensor in state.values()) == TENSORS[name][2]
    others = {
        "loaded": adapters.load(tiny_t5(), tmp_path / "adapter"),
        "copied": copy.deepcopy(model),
        "whole": T5ForConditionalGeneration.from_pretrained(tmp_path / "whole").eval(),
    }
    for origin, other in others.items():
        assert adapters.attachments(other) == adapters.attachments(model), origin
        for task in TENSORS[name][1]:
            adapters.set_active_task(model, task)
            adapters.set_active_task(other, task)
            assert torch.equal(logits(other), logits(model)), origin


def test_a_tt_bias_has_the_rank_of_the_whole_tensor(tiny_t5):
    fields = {"modes": ["layer", "out_in"], "rank": 3, "delta_bias": "tt"}
    layer = layer_at(adapters.attach(tiny_t5(), {**QV, **fields}), linears()[0].path, None)
    assert (layer.ranks, layer.bias.ranks) == ((1, 3, 1), (1, 3, 1))


@pytest.mark.parametrize("disabled", [0, 1, 3])
def test_the_core_of_a_mode_can_be_disabled(tiny_t5, trained, logits, disabled):
    """Its core is the same identity-like element at all sites, also at ranks that a single matrix could not use."""
    fields = {"modes": ["layer", "in", "out", "matrix"], "rank": 3, "disabled_cores": [disabled]}
    model = adapters.attach(tiny_t5(), {**QV, **fields})
    assert torch.equal(logits(model), logits(tiny_t5()))
    counts = {0: 4 * 3, 1: D * 9, 2: D * 9, 3: 4 * 3}
    assert adapters.summary(model).total.trainable == sum(n for k, n in counts.items() if k != disabled)
    unmerged = logits(trained(model))
    assert not torch.allclose(unmerged, logits(tiny_t5()))
    with adapters.merged(model):
        torch.testing.assert_close(logits(model), unmerged, rtol=1e-4, atol=1e-4)


def test_the_summary_lists_which_cores_are_slices(tiny_t5):
    rows = adapters.summary(attached(tiny_t5(), "metatt-4d")).to_dict()["cores"]
    everywhere = "shared across layers, sublayers, projections"
    assert [(row["shape"], row["modules"], row["state"]) for row in rows if row["place"] == "q"] == [
        ([1, 1, 24, 3], 6, f"trains, {everywhere}"),
        ([3, 1, 1, 3], 6, "trains, a slice for each layer, shared across sublayers, projections"),
        ([3, 1, 1, 3], 6, "trains, a slice for each matrix, shared across layers"),
        ([3, 24, 1, 1], 6, f"trains, {everywhere}"),
    ]


def test_tt_single_supports_site_modes(tiny_t5, trained, logits):
    base = tiny_t5()
    description = {"kind": "tt_single", "modes": ["in", "layer", "matrix", "out"], "rank": 3}
    model = adapters.attach(tiny_t5(), description)
    assert torch.equal(logits(model), logits(base))
    # after self-attention and feed-forward of 2 + 2 blocks: 4 layers, 2 kinds of sublayer
    assert adapters.summary(model).total.trainable == 2 * D * 3 + (4 + 2) * 9
    unmerged = logits(trained(model))
    with adapters.merged(model):
        torch.testing.assert_close(logits(model), unmerged, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("modes", "fields", "shapes"),
    [
        # 24 -> 48; 24 = 4 6 = 2 3 4, 48 = 6 8 = 3 4 4
        (["in", "out"], {}, [(1, 1, 24, 2), (2, 48, 1, 1)]),
        (["out", "in"], {}, [(1, 48, 1, 2), (2, 1, 24, 1)]),
        (["in", "in", "out", "out"], {}, [(1, 1, 4, 2), (2, 1, 6, 2), (2, 6, 1, 2), (2, 8, 1, 1)]),
        (
            ["in", "in", "out", "out"],
            {"shape_mode": "reversed_out"},
            [(1, 1, 4, 2), (2, 1, 6, 2), (2, 8, 1, 2), (2, 6, 1, 1)],
        ),
        (["in", "out", "out"], {"shape_mode": "descending"}, [(1, 1, 24, 2), (2, 8, 1, 2), (2, 6, 1, 1)]),
        (["out_in", "out", "in"], {"rank": [1, 2]}, [(1, 6, 4, 1), (1, 8, 1, 2), (2, 1, 6, 1)]),
        (["out_in", "out_in"], {"shape_mode": "ascending"}, [(1, 6, 4, 2), (2, 8, 6, 1)]),
        (["in", "out"], {"raw_shape": [[1, 48], [24, 1]]}, [(1, 1, 24, 2), (2, 48, 1, 1)]),
    ],
    ids=str,
)
def test_modes_determine_the_core_shapes(modes, fields, shapes):
    config = AdapterConfig.from_dict({"kind": "tt_lora", "rank": 2, "modes": modes, **fields})
    assert config.d == len(modes)
    assert [tuple(core.shape) for core in config.build(24, 48).linear.cores] == shapes
    assert AdapterConfig.from_dict(config.to_dict()) == config


@given(
    st.lists(st.sampled_from(["out_in", "in", "out", "layer"]), min_size=1, max_size=6),
    st.integers(1, 400),
    st.integers(1, 400),
    st.sampled_from(["ascending", "descending", "mixed", "reversed_out"]),
)
def test_factors_are_in_the_cores_that_carry_them_and_multiply_to_the_sizes(modes, in_features, out_features, order):
    sides = [[mode in (side, "out_in") for mode in modes] for side in ("out", "in")]
    if not all(map(any, sides)):
        return
    shape = shape_of_modes(modes, in_features, out_features, order)
    for factors, carriers, size in zip(shape, sides, (out_features, in_features), strict=True):
        assert math.prod(factors) == size
        assert all(factor == 1 for factor, carrier in zip(factors, carriers, strict=True) if not carrier)


META = {"modes": ["in", "layer", "matrix", "out"]}
INVALID = [
    ({"modes": ["in", "linear"]}, ["'modes'", "out features"]),
    ({"modes": ["out", "out"]}, ["'modes'", "in features"]),
    ({"modes": []}, ["'modes'"]),
    ({"modes": ["in", "head", "out"]}, ["'modes'", "head"]),
    ({**META, "d": 3}, ["'d'", "3 with 4 in modes"]),
    ({**META, "raw_shape": [[24], [24]]}, ["'raw_shape'", "4 modes"]),
    ({**META, "raw_shape": [[2, 1, 1, 12], [24, 1, 1, 1]]}, ["'raw_shape'", "out", "2 for core 0"]),
    ({**META, "raw_shape": [[1, 1, 1, 24], [12, 2, 1, 1]]}, ["'raw_shape'", "in", "2 for core 1"]),
    ({**META, "shape_mode": "cheapest"}, ["'shape_mode'", "'cheapest'"]),
    ({**META, "shape_mode": "in_only"}, ["'shape_mode'", "'in_only'"]),
    ({**META, "shared_cores": [1]}, ["'shared_cores'", "'layer'"]),
    ({**META, "share_across": ["tasks"]}, ["'share_across'", "'layer'"]),
    ({**META, "rank_pattern": {"q": 2}}, ["'rank_pattern'", "'layer'"]),
    ({**META, "shape_pattern": {"q": IN_OUT}}, ["'shape_pattern'", "'layer'"]),
    ({**META, "format": "tensor_basis"}, ["'modes'", "tensor_basis"]),
    ({**META, "format": "tucker"}, ["'modes'", "tucker"]),
    ({"modes": ["in", "task", "out"], "frozen_cores": [1]}, ["'modes'", "task"]),
    ({**META, "zero_core": 4}, ["'zero_core'", "4"]),
    ({**META, "zero_core": 1, "frozen_cores": [1]}, ["'zero_core'", "[0, 2, 3]"]),
    ({"modes": ["in", "task", "out"], "zero_core": 0}, ["'zero_core'", "[1]"]),
    ({**META, "kind": "tt_adapter"}, ["'modes'", "tt_adapter", "equal sizes"]),
]


@pytest.mark.parametrize(("fields", "named"), INVALID, ids=str)
def test_fields_that_contradict_modes_raise_an_error(fields, named):
    with pytest.raises(ConfigurationError) as error:
        AdapterConfig.from_dict({"kind": "tt_lora", **fields})
    for name in named:
        assert name in str(error.value)


def test_site_modes_require_linears_of_equal_sizes(tiny_t5, snapshot):
    model = tiny_t5()
    before = snapshot(model)
    with pytest.raises(ConfigurationError, match=r"'modes'.*\(3, 24, 1, 1\) and \(3, 48, 1, 1\).*wi"):
        adapters.attach(model, {"kind": "tt_lora", **META, "rank": 3, "target_modules": ["q", "wi"]})
    assert snapshot(model) == before
