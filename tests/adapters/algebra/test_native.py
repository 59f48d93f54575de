"""Folders of adapters.save: read without the base, combined, and loaded into a model that computes the dense sum."""

import itertools
import json

import pytest
import torch
from safetensors.torch import load_file, save_file

import adapters
import t3nsor as t3
from adapters import CheckpointError, ConfigurationError, Deltas

LORA = {"kind": "tt_lora", "rank": 2, "d": 2, "delta_bias": "dense", "scaling": 0.5}
LINEAR = {
    "a dense bias and a scale": LORA,
    "attention, a tt bias, listed ranks": {
        "kind": "tt_lora",
        "rank": [3, 2],
        "shape_mode": "ascending",
        "target_modules": ["q", "o", "wo"],
        "delta_bias": "tt",
    },
    "shared cores": {"kind": "tt_lora", "rank": 2, "shared_cores": [0, 2]},
    "a tensor basis": {"kind": "tt_lora", "rank": 2, "format": "tensor_basis", "frozen_cores": [0]},
    "a tensor ring": {"kind": "tt_lora", "rank": 2, "format": "tensor_ring", "delta_bias": "tt"},
    "a canonical decomposition": {"kind": "tt_lora", "rank": 3, "format": "cp", "delta_bias": "dense", "scaling": 2.0},
    "a Tucker decomposition": {"kind": "tt_lora", "rank": 2, "format": "tucker", "target_modules": ["q", "wo"]},
    "a start from the weight": {
        "kind": "tt_lora",
        "rank": 2,
        "init": "principal",
        "delta_bias": "dense",
        "scaling": 0.5,
    },
    "a disabled core": {"kind": "tt_lora", "rank": 2, "disabled_cores": [1]},
    "factors": {"kind": "tt_lora", "rank": 3, "raw_shape": [[1, 24], [24, 1]], "target_modules": ["q", "v"]},
    "ranks by place": {"kind": "tt_lora", "rank": 2, "d": 2, "rank_pattern": {"wo": 3, "block.1.*wi": 4}},
    "one tensor": {
        "kind": "tt_lora",
        "rank": 2,
        "modes": ["in", "layer", "matrix", "out"],
        "target_modules": ["q", "v"],
    },
    "two adapters": [{**LORA, "shape_mode": "mixed"}, {**LORA, "shape_mode": "mixed", "rank": 3}],
}


def close(a, b):
    return torch.allclose(a, b, rtol=1e-4, atol=1e-5)


def dense(deltas):
    """Matrices and biases by path, in float64."""
    return {path: train.full() for path, train in deltas.items()}, dict(deltas.biases)


WRITTEN = (
    "a dense bias and a scale",
    "attention, a tt bias, listed ranks",
    "a start from the weight",
    "ranks by place",
    "one tensor",
    "two adapters",
)
"""Adapters whose configurations are written in different ways; the formats differ only in how they are read."""


@pytest.mark.parametrize("description", LINEAR.values(), ids=LINEAR)
def test_deltas_of_a_folder_and_of_the_live_model_are_those_of_its_modules(native, description):
    model, folder = native(description)
    live, read = Deltas.of(model), Deltas.read(folder)
    assert live.keys() == read.keys()
    for path in live:
        assert all(torch.equal(*cores) for cores in zip(live[path].cores, read[path].cores, strict=True))
    deltas = read.per_linear()
    linears = {path: linear for path, linear in adapters.adapted_modules(model) if linear.beside}
    assert list(deltas) == sorted(linears)
    for path, linear in linears.items():
        acting = [controller.active for controller in linear.beside.values()]
        torch.testing.assert_close(deltas[path].full().float(), sum(a.delta_weight() for a in acting).detach())
        biases = [bias.detach() for a in acting if (bias := a.delta_bias()) is not None]
        assert (path in deltas.biases) == bool(biases)
        if biases:
            torch.testing.assert_close(deltas.biases[path].float(), sum(biases))


@pytest.mark.parametrize("case", WRITTEN)
def test_a_rounded_sum_computes_the_dense_sum(native, case, tiny_t5, logits, tmp_path, with_dense):
    (_, a), (_, b) = native(LINEAR[case], 4), native(LINEAR[case], 5)
    total = 2 * Deltas.read(a) - Deltas.read(b)
    total.round(rel_tol=1e-9)[0].write(tmp_path / "sum", like=a)
    expected = logits(with_dense(tiny_t5(), *dense(total.per_linear())))
    assert close(logits(adapters.load(tiny_t5(), tmp_path / "sum")), expected)
    files = sorted(path.name for path in (tmp_path / "sum").iterdir())
    assert files == ["adapter_config.json", "adapter_model.safetensors"]


def test_reading_needs_no_weights_of_the_base(native):
    """The base is built on the meta device, so that neither memory nor random numbers are used."""
    _, folder = native(LORA)
    path = folder / "adapter_config.json"
    before = torch.get_rng_state()
    deltas = Deltas.read(folder)
    assert torch.equal(torch.get_rng_state(), before)
    assert (
        json.loads(path.read_text())["architecture"]["d_model"]
        == deltas["encoder.block.0.layer.1.DenseReluDense.wi"].shape[1]
    )


def test_a_sum_of_adapters_at_different_linears_has_deltas_at_these(native, tiny_t5, logits, tmp_path, with_dense):
    """wi of an encoder block and o of the decoder, which no choice of stacks, layers and names describes."""
    _, a = native({**LORA, "target_modules": ["wi"], "stacks": ["encoder"], "layers": [1]}, 4)
    _, b = native({**LORA, "target_modules": ["o"], "sublayers": ["self_attention"], "stacks": ["decoder"]}, 5)
    total = Deltas.read(a) + Deltas.read(b)
    assert len(total) == 1 + 2
    total.write(tmp_path / "sum", like=a)
    model = adapters.load(tiny_t5(), tmp_path / "sum")
    assert close(logits(model), logits(with_dense(tiny_t5(), *dense(total))))
    written = Deltas.read(tmp_path / "sum")
    assert written.keys() == total.keys()
    assert written.distance(total) < 1e-6


def test_different_ranks_and_shapes_become_patterns(native, tiny_t5, logits, tmp_path, with_dense):
    _, folder = native({**LORA, "rank": 4}, 4)
    x = Deltas.read(folder)
    rounded = x.round(rel_tol=0.5)[0]
    for path in ("encoder.block.0.layer.1.DenseReluDense.wi", "decoder.block.1.layer.2.DenseReluDense.wi"):
        rounded = Deltas({**rounded, path: Deltas({path: x[path]}).round(max_rank=1)[0][path]}, x.biases)
    other = Deltas({path: x[path] for path in x if path.endswith("wo")}).reshaped(
        d=3, shape_mode="ascending", max_rank=4
    )[0]
    mixed = Deltas({**rounded, **other}, x.biases)
    mixed.write(tmp_path / "mixed", like=folder)
    config = json.loads((tmp_path / "mixed" / "adapter_config.json").read_text())["adapters"][0]["config"]
    assert len(config["shape_pattern"]) == 1
    assert {"encoder.block.0.layer.1.DenseReluDense.wi", "wi"} & set(config["rank_pattern"])
    written = Deltas.read(tmp_path / "mixed")
    assert {path: train.ranks for path, train in written.items()} == {path: mixed[path].ranks for path in mixed}
    assert {path: train.raw_shape for path, train in written.items()} == {path: mixed[path].raw_shape for path in mixed}
    expected = logits(with_dense(tiny_t5(), *dense(mixed)))
    assert close(logits(adapters.load(tiny_t5(), tmp_path / "mixed")), expected)


def test_ranks_beyond_the_largest_useful_one_are_cut(native, tmp_path):
    """Nine times rank 2 at a bond whose largest useful rank is 8."""
    _, folder = native({**LORA, "raw_shape": [[4, 6], [2, 12]], "target_modules": ["q"]})
    x = Deltas.read(folder)
    total = sum(itertools.repeat(x, 8), x)
    assert max(map(max, (train.ranks for train in total.values()))) == 18
    total.write(tmp_path / "sum", like=folder)
    written = Deltas.read(tmp_path / "sum")
    assert {train.ranks for train in written.values()} == {(1, 8, 1)}
    assert written.distance(9 * x) <= 1e-6 * written.norm()


def test_cores_of_useful_ranks_are_written_unchanged(native, tmp_path):
    _, folder = native({**LORA, "scaling": 1.0})
    x = Deltas.read(folder)
    x.write(tmp_path / "again", like=folder)
    again = Deltas.read(tmp_path / "again")
    for path in x:
        assert all(torch.equal(*cores) for cores in zip(x[path].cores, again[path].cores, strict=True))


def test_a_compiled_model_has_the_paths_of_the_original(native):
    model, folder = native(LINEAR["one tensor"])
    live = Deltas.of(torch.compile(model, backend="eager"))
    assert live.per_linear().keys() == Deltas.of(model).per_linear().keys()
    assert live.distance(Deltas.read(folder)) < 1e-12


def test_each_task_has_its_own_deltas(tiny_t5, tmp_path, trained):
    model = tiny_t5()
    for task in ("a", "b"):
        adapters.attach(model, LORA, task)
    adapters.save(trained(model), tmp_path / "tasks")
    a, b = (Deltas.read(tmp_path / "tasks", task) for task in ("a", "b"))
    assert a.distance(b) > 0.1
    for task, deltas in (("a", a), ("b", b)):
        adapters.set_active_task(model, task)
        assert Deltas.of(model).distance(deltas) < 1e-12
    with pytest.raises(CheckpointError, match=r"tasks \['a', 'b'\]"):
        Deltas.read(tmp_path / "tasks")
    with pytest.raises(CheckpointError, match="'c'"):
        Deltas.read(tmp_path / "tasks", "c")


@pytest.mark.parametrize(
    ("description", "named"),
    [
        ({"kind": "bottleneck", "reduction_factor": 4}, "'bottleneck'"),
        ({"kind": "scale_norm"}, "'scale_norm'"),
        ({"kind": "bitfit"}, "'bitfit'"),
        ({"kind": "tt_single", "rank": 2}, "'tt_single'"),
        ({"kind": "peft:LORA"}, "'peft:LORA'"),
        ([LORA, {"kind": "layer_norm"}], "'layer_norm'"),
        ({"kind": "tt_lora", "rank": 2, "core_activation": "gelu"}, "core_activation='gelu'"),
        ([{**LORA, "d": 2}, {**LORA, "d": 3}], "give both the same raw_shape"),
    ],
    ids=str,
)
def test_other_kinds_than_tt_lora_are_reported_by_name(native, description, named):
    model, folder = native(description)
    with pytest.raises(CheckpointError, match=named):
        Deltas.read(folder)
    with pytest.raises(ConfigurationError, match=named):
        Deltas.of(model)


def test_a_model_without_adapters_is_reported(tiny_t5):
    with pytest.raises(ConfigurationError, match="with none active"):
        Deltas.of(tiny_t5())


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda d: d["architecture"].update(model_type="unheard_of"), "unheard_of"),
        (lambda d: d.update(architecture=3), "the base 3 "),
        (lambda d: d["architecture"].update(model_type="bart"), "bart"),
        (lambda d: d["architecture"].update(d_ff=96), "has shape"),
        (lambda d: d["architecture"].update(num_layers=3), "got none for"),
    ],
    ids=["an unknown model_type", "no architecture", "BART", "another width", "another depth"],
)
def test_an_architecture_that_does_not_fit_the_tensors_is_reported(native, change, named):
    _, folder = native(LORA)
    path = folder / "adapter_config.json"
    description = json.loads(path.read_text())
    change(description)
    path.write_text(json.dumps(description))
    weights = folder / "adapter_model.safetensors"
    metadata = {adapters.saved.checkpoint.METADATA_KEY: adapters.saved.checkpoint.fingerprint(description)}
    save_file(load_file(weights), weights, metadata)
    with pytest.raises(CheckpointError, match=named):
        Deltas.read(folder)


@pytest.mark.parametrize(
    ("path", "shape", "named"),
    [
        ("encoder.block.7.layer.1.DenseReluDense.wi", (48, 24), "block.7"),
        ("lm_head", (50, 24), "lm_head"),
        ("encoder.block.0.layer.1.DenseReluDense.wi", (24, 24), r"\(48, 24\)"),
    ],
)
def test_a_delta_without_a_linear_in_the_base_is_not_written(native, tmp_path, path, shape, named):
    _, folder = native(LORA)
    train = t3.from_low_rank(torch.ones(shape[0], 2), torch.ones(2, shape[1]))
    with pytest.raises(CheckpointError, match=named):
        Deltas({path: train}).write(tmp_path / "out", like=folder)
    with pytest.raises(CheckpointError, match="at least one delta"):
        Deltas({}).write(tmp_path / "out", like=folder)
    assert not (tmp_path / "out").exists()
