"""The decomposition of a weight into a layer's cores: numpy's SVD, Oseledets' bound, and evenness at every bond."""

import math

import numpy as np
import pytest
import torch
from torch import nn

import t3nsor as t3

SHAPES = [((6,), (4,)), ((2, 3), (4, 2)), ((1, 12), (9, 1)), ((2, 3, 4), (3, 2, 2)), ((2, 1, 3, 2), (1, 3, 2, 2))]


def layer_of(raw_shape, rank=3, **options):
    rows, columns = map(math.prod, raw_shape)
    options = {"bias": False, "dtype": torch.float64, **options}
    return t3.TTLinear(columns, rows, raw_shape=raw_shape, tt_rank=rank, **options)


def random_weight(layer):
    return torch.randn(layer.out_features, layer.in_features, dtype=torch.float64)


def unfolding(dense, raw_shape, k):
    """The unfolding (m_1 n_1 ... m_k n_k, rest) by numpy."""
    d = len(raw_shape[0])
    tensor = dense.numpy().reshape(*raw_shape[0], *raw_shape[1]).transpose([i for k in range(d) for i in (k, d + k)])
    return tensor.reshape(math.prod(raw_shape[0][:k]) * math.prod(raw_shape[1][:k]), -1)


@pytest.mark.parametrize("format", ["tensor_train", "tensor_ring"])
@pytest.mark.parametrize("raw_shape", SHAPES, ids=str)
def test_a_matrix_of_sufficiently_low_ranks_is_represented_exactly(raw_shape, format, dense_of):
    layer = layer_of(raw_shape, 100, format=format)
    weight = random_weight(layer)
    before = list(layer.cores)
    layer.set_weight(weight)
    assert all(core is other for core, other in zip(layer.cores, before, strict=True))
    torch.testing.assert_close(dense_of(layer.cores), weight, rtol=1e-11, atol=1e-11)
    x = torch.randn(5, layer.in_features, dtype=torch.float64)
    torch.testing.assert_close(layer(x), x @ weight.T, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("rank", [1, 2, 4])
@pytest.mark.parametrize("raw_shape", [((1, 12), (9, 1)), ((3, 4), (5, 2))], ids=str)
def test_two_cores_are_the_best_approximation_with_the_root_of_each_singular_value(raw_shape, rank, dense_of):
    layer = layer_of(raw_shape, rank)
    weight = random_weight(layer)
    layer.set_weight(weight)
    u, s, v = np.linalg.svd(unfolding(weight, raw_shape, 1), full_matrices=False)
    nearest = (u[:, :rank] * s[:rank]) @ v[:rank]
    np.testing.assert_allclose(unfolding(dense_of(layer.cores), raw_shape, 1), nearest, rtol=1e-10, atol=1e-10)
    for core in (layer.cores[0].flatten(0, 2).T, layer.cores[1].flatten(1)):
        np.testing.assert_allclose((core @ core.T).detach(), np.diag(s[:rank]), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("raw_shape", SHAPES[3:], ids=str)
def test_with_more_cores_the_error_is_within_oseledets_bound(raw_shape, rank, dense_of):
    layer = layer_of(raw_shape, rank)
    weight = random_weight(layer)
    layer.set_weight(weight)
    error = (dense_of(layer.cores) - weight).square().sum().item()
    tails = [
        (np.linalg.svd(unfolding(weight, raw_shape, k), compute_uv=False)[layer.ranks[k] :] ** 2).sum()
        for k in range(1, len(raw_shape[0]))
    ]
    assert max(tails) - 1e-10 <= error <= sum(tails) + 1e-10


@pytest.mark.parametrize("rank", [2, 100])
@pytest.mark.parametrize("raw_shape", SHAPES[1:], ids=str)
def test_the_singular_values_are_split_evenly_at_every_bond(raw_shape, rank, dense_of):
    layer = layer_of(raw_shape, rank)
    layer.set_weight(random_weight(layer))
    cores, full = [core.detach() for core in layer.cores], dense_of(layer.cores)
    for k in range(1, len(cores)):
        values = np.linalg.svd(unfolding(full, raw_shape, k), compute_uv=False)[: layer.ranks[k]]
        left = cores[0].flatten(0, 2)
        for core in cores[1:k]:
            left = (left @ core.flatten(1)).reshape(-1, core.shape[3])
        right = cores[-1].flatten(1)
        for core in reversed(cores[k:-1]):
            right = (core.flatten(0, 2) @ right).reshape(core.shape[0], -1)
        for gram in (left.T @ left, right @ right.T):
            np.testing.assert_allclose(gram, np.diag(values), rtol=1e-9, atol=1e-9)


def test_redundant_rank_indices_have_gradients():
    layer = layer_of(((2, 3, 4), (3, 2, 2)), 4)
    layer.set_weight(t3.random_matrix(layer.raw_shape, 1, dtype=torch.float64).full())
    target = random_weight(layer)
    (layer.full() - target).square().sum().backward()
    for k in (0, 1):
        idle = [not layer.cores[k][..., b].any() for b in range(4)]
        assert sum(idle) == 3
        reached = [layer.cores[k].grad[..., b].any().item() for b in range(4)]
        assert reached == [True] * 4 if k == 1 else any(reached)


@pytest.mark.parametrize("format", ["tensor_train", "tensor_ring"])
def test_the_zero_matrix_is_represented_and_has_gradients(format):
    layer = layer_of(((2, 3, 4), (3, 2, 2)), 2, format=format)
    layer.set_weight(torch.zeros(24, 12, dtype=torch.float64))
    assert not layer.full().any()
    assert all(core.isfinite().all() for core in layer.cores)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.03)])
@pytest.mark.parametrize("cores_dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_any_dtype_of_matrix_and_cores(cores_dtype, dtype, tolerance):
    layer = layer_of(((2, 3, 4), (3, 2, 2)), 100, dtype=cores_dtype)
    weight = random_weight(layer).to(dtype)
    layer.set_weight(weight)
    assert {core.dtype for core in layer.cores} == {cores_dtype}
    tolerance = max(tolerance, 0.05 if cores_dtype == torch.bfloat16 else 0)
    torch.testing.assert_close(layer.full().double(), weight.double(), rtol=tolerance, atol=tolerance)


def test_a_ring_has_the_error_of_tr_svd():
    layer = layer_of(((2, 3, 4), (3, 2, 2)), [2, 3, 3], format="tensor_ring")
    weight = random_weight(layer)
    layer.set_weight(weight)
    expected = t3.tr_svd(weight, layer.raw_shape, max_rank=[2, 3, 3])
    torch.testing.assert_close(layer.full(), expected.full(), rtol=1e-11, atol=1e-11)


def test_unused_ranks_of_a_ring_are_zero():
    layer = layer_of(((2, 2), (1, 1)), 5, format="tensor_ring")
    weight = random_weight(layer)
    layer.set_weight(weight)
    torch.testing.assert_close(layer.full(), weight, rtol=1e-12, atol=1e-12)


def shared():
    layer = layer_of(SHAPES[1])
    layer.share(0, nn.ParameterDict({"core": layer.cores[0].detach().clone()}), "core")
    return layer


GOOD = torch.zeros(6, 8, dtype=torch.float64)
INVALID = [
    (lambda: layer_of(SHAPES[1], core_activation="gelu"), GOOD, "got core_activation = 'gelu': build a layer without"),
    (lambda: layer_of(SHAPES[1], frozen_cores=[1]), GOOD, r"got frozen_cores = \(1,\)"),
    (lambda: layer_of(SHAPES[1], disabled_cores=[0]), GOOD, r"got disabled_cores = \(0,\)"),
    (shared, GOOD, r"got shared cores = \[0\]"),
    (lambda: layer_of(SHAPES[1], format="tensor_basis"), GOOD, "got format = 'tensor_basis'"),
    (lambda: layer_of(SHAPES[1], format="cp"), GOOD, "got format = 'cp'"),
    (lambda: layer_of(SHAPES[1], format="tucker"), GOOD, "got format = 'tucker'"),
    (lambda: layer_of(SHAPES[1], device="meta"), GOOD, "got device = 'meta'"),
    (lambda: layer_of(SHAPES[1]), GOOD.T, r"the shape \(6, 8\) of the layer; got \(8, 6\)"),
    (lambda: layer_of(SHAPES[1]), GOOD / 0, "must be finite; got a NaN"),
    (lambda: layer_of(SHAPES[1]), GOOD.to("meta"), "meta device"),
    (lambda: layer_of(SHAPES[1]), GOOD.long(), "dense must be a floating-point tensor"),
    (lambda: layer_of(SHAPES[1]), [[1.0]], "dense must be a floating-point tensor; got list"),
]


@pytest.mark.parametrize(("make", "dense", "message"), INVALID)
def test_invalid_input_raises_and_changes_nothing(make, dense, message):
    layer = make()
    before = {name: parameter.clone() for name, parameter in layer.named_parameters()}
    with pytest.raises((ValueError, TypeError), match=message):
        layer.set_weight(dense)
    if "meta" not in message:
        assert all(torch.equal(parameter, before[name]) for name, parameter in layer.named_parameters())
