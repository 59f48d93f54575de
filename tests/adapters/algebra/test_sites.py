"""Adapters with site modes as one train: compared with the dense tensor of their slices, and linear by linear."""

import itertools

import numpy as np
import pytest
import torch

import adapters
from adapters import CheckpointError, Deltas
from adapters.algebra.live import ONE_TENSOR

FIELDS = {"kind": "tt_lora", "rank": 2, "target_modules": ["q", "v"], "scaling": 0.5}
MODES = {
    "MetaTT-4D": ["in", "layer", "matrix", "out"],
    "LoTR": ["in", "linear", "out"],
    "interleaved": ["out_in", "layer", "out_in", "matrix", "out_in"],
}


@pytest.fixture(params=MODES)
def modes(request):
    return MODES[request.param]


def close(a, b):
    return torch.allclose(a, b, rtol=1e-4, atol=1e-5)


def slices_of(model):
    """{path: cores of its linear}, from the modules."""
    linears = [(path, linear) for path, linear in adapters.adapted_modules(model) if linear.beside]
    return {path: linear.beside["tt_lora"].active.linear.live_cores() for path, linear in linears}


def test_the_train_has_the_delta_of_every_linear(native, modes):
    model, folder = native({**FIELDS, "modes": modes})
    joint = Deltas.read(folder)
    assert list(joint) == [ONE_TENSOR]
    apart = joint.per_linear()
    live = {path: linear for path, linear in adapters.adapted_modules(model) if linear.beside}
    assert apart.keys() == live.keys()
    for path, linear in live.items():
        torch.testing.assert_close(apart[path].full().float(), linear.beside["tt_lora"].active.delta_weight().detach())
    assert Deltas.of(model).distance(joint) < 1e-12
    assert apart.per_linear() is apart


@pytest.mark.parametrize(
    "fields",
    [
        {"format": "cp", "modes": ["in", "out", "layer", "matrix"]},  # LoRTA
        {"format": "tensor_ring", "modes": ["layer", "out_in", "out_in", "matrix"]},
    ],
    ids=str,
)
def test_tensors_of_other_formats_are_read_as_trains(native, fields, tiny_t5, logits, tmp_path):
    model, folder = native({**FIELDS, **fields})
    joint = Deltas.read(folder)
    assert list(joint) == [ONE_TENSOR]
    apart = joint.per_linear()
    for path, linear in adapters.adapted_modules(model):
        if linear.beside:
            delta = linear.beside["tt_lora"].active.delta_weight().detach()
            torch.testing.assert_close(apart[path].full().float(), delta)
    for name, deltas in {"joint": joint, "apart": apart}.items():
        deltas.write(tmp_path / name, like=folder)
        assert close(logits(adapters.load(tiny_t5(), tmp_path / name)), logits(model))


def test_the_norm_counts_every_combination_of_sites(native):
    """MetaTT-4D in numpy: W[l, m] = s G_1 G_2[l] G_3[m] G_4, for 4 layers and 4 kinds of matrix.

    An encoder has no cross-attention: 4 of the 16 matrices belong to no linear.
    """
    model, folder = native({**FIELDS, "modes": MODES["MetaTT-4D"]})
    cores = slices_of(model)
    layers = {core[1].data_ptr(): core[1] for core in cores.values()}
    matrices = {core[2].data_ptr(): core[2] for core in cores.values()}
    first, last = (next(iter(cores.values()))[k].detach().double().numpy() for k in (0, 3))
    squares = []
    for layer, matrix in itertools.product(layers.values(), matrices.values()):
        middle = layer[:, 0, 0].detach().double().numpy() @ matrix[:, 0, 0].detach().double().numpy()
        squares.append(np.linalg.norm(0.5 * last[:, :, 0, 0].T @ middle.T @ first[0, 0].T) ** 2)
    joint = Deltas.read(folder)
    assert (len(layers), len(matrices), len(cores)) == (4, 4, 12)
    assert joint.norm() == pytest.approx(sum(squares) ** 0.5, rel=1e-6)
    assert joint.per_linear().norm() < joint.norm()


def test_a_sum_keeps_cores_shared_and_computes_the_dense_sum(native, modes, tiny_t5, logits, with_dense, tmp_path):
    folders = [native({**FIELDS, "modes": modes, "delta_bias": "dense"}, seed)[1] for seed in (1, 2)]
    x, y = map(Deltas.read, folders)
    adapters.combine(folders, [1, -0.5], output=tmp_path / "sum")
    apart = (x - 0.5 * y).per_linear()
    model = adapters.load(tiny_t5(), tmp_path / "sum")
    matrices = {path: train.full() for path, train in apart.items()}
    assert close(logits(model), logits(with_dense(tiny_t5(), matrices, apart.biases)))
    (attachment,) = adapters.attachments(model)
    assert attachment.config.modes == tuple(modes)
    assert all(4 >= rank >= 2 for rank in attachment.config.rank)
    assert apart.distance(x.per_linear() - 0.5 * y.per_linear()) < 1e-12


def test_a_rounded_sum_of_equals_has_the_parameter_count_of_one(native, tiny_t5, tmp_path):
    model, folder = native({**FIELDS, "modes": MODES["MetaTT-4D"]})
    report = adapters.combine([folder, folder], [0.75, 0.25], rel_tol=1e-6, output=tmp_path / "same")
    assert report.relative_error < 1e-6
    again = adapters.load(tiny_t5(), tmp_path / "same")
    count = adapters.summary(model).total.trainable
    assert adapters.summary(again).total.trainable == count
    assert Deltas.of(again).distance(Deltas.of(model)) < 1e-6


def test_one_tensor_has_the_algebra_of_its_dense_matrix(native):
    x, y = (Deltas.read(native({**FIELDS, "modes": MODES["LoTR"]}, seed)[1]) for seed in (1, 2))
    a, b = (deltas[ONE_TENSOR].full() for deltas in (x, y))
    assert x.dot(y) == pytest.approx((a * b).sum().item(), rel=1e-9)
    assert (2 * x - y).norm() == pytest.approx((2 * a - b).norm().item(), rel=1e-9)
    rounded, report = x.round(max_rank=1)
    assert report.error == pytest.approx((rounded[ONE_TENSOR].full() - a).norm().item(), rel=1e-9)


def test_per_linear_it_is_added_to_and_compared_with_other_adapters(native, tiny_t5, logits, with_dense, tmp_path):
    _, a = native({**FIELDS, "modes": MODES["MetaTT-4D"]}, 1)
    _, b = native({**FIELDS, "d": 2, "delta_bias": "dense"}, 2)
    comparison = adapters.compare([a, b])
    x, y = (Deltas.read(folder).per_linear().to_low_rank() for folder in (a, b))
    assert comparison.norms == pytest.approx((x.norm(), y.norm()), rel=1e-9)
    total = x + y
    total.write(tmp_path / "sum", like=a)
    matrices = {path: train.full() for path, train in total.items()}
    model = adapters.load(tiny_t5(), tmp_path / "sum")
    assert close(logits(model), logits(with_dense(tiny_t5(), matrices, total.biases)))


def test_an_adapter_with_a_task_mode_is_read_for_one_task(tiny_t5, trained, tmp_path, logits):
    model = tiny_t5()
    for task in ("a", "b"):
        adapters.attach(model, {**FIELDS, "modes": ["in", "layer", "task", "matrix", "out"]}, task)
    adapters.save(trained(model), tmp_path / "tasks")
    for task in ("a", "b"):
        x = Deltas.read(tmp_path / "tasks", task)
        adapters.set_active_task(model, task)
        assert x.sites.counts == (1, 4, 1, 4, 1)
        assert x.distance(Deltas.of(model)) < 1e-12
        x.write(tmp_path / task, like=tmp_path / "tasks")
        assert close(logits(adapters.load(tiny_t5(), tmp_path / task)), logits(model))


UNSUPPORTED = {
    "other sites": (lambda x, y, folder: x + y, "same sites"),
    "a product with other sites": (lambda x, y, folder: x.dot(y), "same sites"),
    "one with deltas of linears": (lambda x, y, folder: x - x.per_linear(), "same sites"),
    "factors": (lambda x, y, folder: x.to_low_rank(), r"use per_linear\(\) first"),
    "another shape": (lambda x, y, folder: x.reshaped(d=2), r"use per_linear\(\) first"),
    "LoRA": (lambda x, y, folder: x.write_lora(folder / "out"), r"use per_linear\(\) first"),
    "like an adapter with other modes": (lambda x, y, folder: x.write(folder / "out", like=folder), "write per_linear"),
}


@pytest.mark.parametrize("case", UNSUPPORTED)
def test_unsupported_operations_on_one_tensor_are_reported(native, case, tmp_path):
    x, y = (Deltas.of(native({**FIELDS, "modes": MODES[name]})[0]) for name in ("MetaTT-4D", "LoTR"))
    folder = tmp_path / "native_1"
    attempt, named = UNSUPPORTED[case]
    with pytest.raises((ValueError, CheckpointError), match=named):
        attempt(x, y, folder)
    assert not (folder / "out").exists()
