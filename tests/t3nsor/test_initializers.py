import itertools
import math

import pytest
import torch

import t3nsor as t3
from t3nsor.initializers import initialize_

SHAPE = ((4, 3, 5), (5, 4, 3))  # out 60, in 60
WIDE = ((2, 3, 4), (5, 4, 6))  # out 24, in 120


def entries(make, draws=400):
    """`draws` independent matrices, (draws, out, in)."""
    torch.manual_seed(0)
    return torch.stack([make().full() for _ in range(draws)])


def assert_variance(samples, variance):
    """Check mean and variance within five standard errors, estimated from the independent draws."""
    draws = samples.shape[0]
    means, squares = samples.mean(dim=(1, 2)), samples.square().mean(dim=(1, 2))
    assert abs(means.mean()) <= 5 * means.std() / math.sqrt(draws)
    assert abs(squares.mean() - variance) <= 5 * squares.std() / math.sqrt(draws)
    assert squares.std() / math.sqrt(draws) <= 0.1 * variance  # sharp enough to tell a wrong factor


@pytest.mark.parametrize("format", t3.FORMATS)
@pytest.mark.parametrize(("raw_shape", "rank"), [(((12,), (15,)), 1), (((3, 4), (5, 3)), 2), (WIDE, 8)])
def test_random_matrix_has_the_requested_variance(raw_shape, rank, format):
    samples = entries(lambda: t3.random_matrix(raw_shape, rank, std=0.3, format=format))
    assert_variance(samples, 0.09)


@pytest.mark.parametrize(
    ("initializer", "variance"),
    [(t3.glorot_initializer, 2 / 144), (t3.he_initializer, 2 / 120), (t3.lecun_initializer, 1 / 120)],
)
def test_scaled_initializers(initializer, variance):
    assert_variance(entries(lambda: initializer(WIDE, [4, 5])), variance)


def test_matrix_with_random_cores_has_the_standard_deviation_in_its_cores():
    torch.manual_seed(0)
    cores = t3.matrix_with_random_cores(((30, 30), (30, 30)), 8, std=0.5).cores
    for core in cores:
        assert core.std().item() == pytest.approx(0.5, rel=0.05)
        assert core.mean().item() == pytest.approx(0.0, abs=0.05)


def test_a_random_canonical_network_has_diagonal_cores():
    for make in (t3.random_matrix, t3.matrix_with_random_cores):
        _, middle, _ = make(SHAPE, 3, format="cp").cores
        off_diagonal = ~torch.eye(3, dtype=torch.bool)
        assert not middle.permute(0, 3, 1, 2)[off_diagonal].any()
        assert middle.permute(0, 3, 1, 2)[~off_diagonal].all()


def test_a_random_tucker_network_has_its_multilinear_ranks():
    full = t3.random_matrix(SHAPE, [2, 3, 4], format="tucker", dtype=torch.float64).full()
    tensor = full.reshape(4, 3, 5, 5, 4, 3).permute(0, 3, 1, 4, 2, 5).reshape(20, 12, 15)
    unfoldings = [tensor.movedim(k, 0).flatten(1) for k in range(3)]
    assert [torch.linalg.matrix_rank(unfolding).item() for unfolding in unfoldings] == [2, 3, 4]


@pytest.mark.parametrize("value", [1.0, 0.25, -2.0, 0.0, 1e-6])
@pytest.mark.parametrize("rank", [1, 3, [2, 4]])
@pytest.mark.parametrize("raw_shape", [SHAPE, ((4, 3, 5), (1, 1, 1))])
def test_const_initializer_has_one_value_everywhere(raw_shape, rank, value):
    full = t3.const_initializer(raw_shape, rank, value).full()
    torch.testing.assert_close(full, torch.full_like(full, value), rtol=1e-6, atol=0)


def test_ones_are_exact():
    full = t3.const_initializer(SHAPE, 7, 1.0).full()
    assert torch.equal(full, torch.ones_like(full))


def trained_singular_values(cores, target):
    """The singular values at the first bond after fitting `target` by plain gradient descent from these cores."""
    parameters = [core.clone().requires_grad_() for core in cores]
    optimizer = torch.optim.SGD(parameters, lr=0.02)
    for _ in range(600):
        optimizer.zero_grad()
        (t3.TensorTrain(parameters).full() - target).square().sum().backward()
        optimizer.step()
    full = t3.TensorTrain(parameters).full().detach()
    bond = full.reshape(4, 4, 4, 4).permute(0, 2, 1, 3).reshape(16, 16)
    return torch.linalg.svdvals(bond), (full - target).norm() / target.norm()


def test_a_constant_init_trains_every_rank_and_equal_entries_do_not():
    torch.manual_seed(0)
    raw_shape = ((4, 4), (4, 4))
    target = t3.random_matrix(raw_shape, 3, dtype=torch.float64).full() * 0.3
    start = t3.const_initializer(raw_shape, 3, 0.1, dtype=torch.float64)
    values, error = trained_singular_values(start.cores, target)
    assert values[2] > 0.1 * values[0]
    assert error < 0.05
    equal = [torch.full_like(core, (0.1 / 3) ** 0.5) for core in start.cores]
    values, error = trained_singular_values(equal, target)
    assert values[1] < 1e-10 * values[0]
    assert error > 0.3


@pytest.mark.parametrize("format", ["tensor_train", "tensor_ring"])
@pytest.mark.parametrize(("init", "expected"), [("zero", 0.0), ("ones", 1.0), ("const", 1 / 120)])
@pytest.mark.parametrize("raw_shape", [WIDE, ((24,), (120,))])
def test_constant_names(init, expected, format, raw_shape):
    network = t3.random_matrix(raw_shape, 3, format=format)
    initialize_(network.cores, init)
    full = network.full()
    torch.testing.assert_close(full, torch.full_like(full, expected), rtol=1e-6, atol=0)


def test_a_constant_ring_has_distinct_rank_indices():
    cores = [core.requires_grad_() for core in t3.random_matrix(WIDE, 3, format="tensor_ring").cores]
    initialize_(cores, "ones")
    for _ in range(2):
        loss = (t3.TensorRing(cores).full() - torch.randn(24, 120)).square().sum()
        gradients = torch.autograd.grad(loss, cores)
        with torch.no_grad():
            for core, gradient in zip(cores, gradients, strict=True):
                core -= 1e-3 * gradient
    for core in cores:
        for index in (core.detach().flatten(1), core.detach().flatten(0, 2).T):  # (r, m n s) and (s, r m n)
            differences = torch.cdist(index, index) + torch.eye(3)
            assert differences.min() > 1e-4


@pytest.mark.parametrize(
    ("init", "variance"), [("glorot", 2 / 144), ("he", 2 / 120), ("lecun", 1 / 120), (0.5, 0.25), (2, 4.0)]
)
def test_random_names(init, variance):
    def make():
        network = t3.random_matrix(WIDE, 4)
        initialize_(network.cores, init)
        return network

    assert_variance(entries(make), variance)


def test_dtype_device_and_meta():
    assert t3.he_initializer(SHAPE, 2, dtype=torch.bfloat16).dtype == torch.bfloat16
    assert t3.random_matrix(SHAPE, 2, device="meta").device.type == "meta"
    assert t3.const_initializer(SHAPE, 2, device="meta").device.type == "meta"


@pytest.mark.parametrize("init", ["kaiming", 0, -1.0, math.inf, math.nan, True, None, [1.0]])
def test_unknown_initialisers_raise(init):
    cores = t3.random_matrix(SHAPE, 2).cores
    with pytest.raises(ValueError, match="init must be one of glorot, he, lecun, const, zero, ones, ident"):
        initialize_(cores, init)


@pytest.mark.parametrize("value", ["a", math.nan, math.inf, True])
def test_invalid_constants_raise(value):
    with pytest.raises(ValueError, match="value must be a finite number"):
        t3.const_initializer(SHAPE, 2, value)


@pytest.mark.parametrize("make", [t3.random_matrix, t3.matrix_with_random_cores])
@pytest.mark.parametrize("std", [0.0, -1, "large", True])
def test_invalid_standard_deviations_raise(make, std):
    with pytest.raises(ValueError, match="std must be a positive number"):
        make(SHAPE, 2, std=std)


@pytest.mark.parametrize("center", [0, 1, -1])
@pytest.mark.parametrize("raw_shape", [((4, 3, 2), (2, 5, 3)), ((1, 1, 12), (8, 1, 1)), ((6,), (4,))], ids=str)
def test_an_orthogonal_init_has_orthonormal_interfaces_and_the_variance_of_glorot(raw_shape, center):
    d = len(raw_shape[0])
    center = min(center, d - 1)
    squares = []
    for _ in range(60):
        layer = t3.TTLinear(
            math.prod(raw_shape[1]),
            math.prod(raw_shape[0]),
            bias=False,
            raw_shape=raw_shape,
            tt_rank=3,
            init="orthogonal",
            zero_core=center,
            dtype=torch.float64,
        )
        cores = [core.detach() for core in layer.cores]
        assert not cores[center].any()
        for k, core in enumerate(cores):
            if k != center % d:
                unfolding = core.reshape(-1, core.shape[3]).T if k < center % d else core.reshape(core.shape[0], -1)
                identity = torch.eye(len(unfolding), dtype=torch.float64)
                torch.testing.assert_close(unfolding @ unfolding.T, identity, rtol=1e-10, atol=1e-10)
        free = [torch.empty_like(core) for core in cores]
        initialize_(free, "orthogonal", center)
        squares.append(t3.TensorTrain(free).full().square().mean())
    variance = 2 / (math.prod(raw_shape[0]) + math.prod(raw_shape[1]))
    assert torch.stack(squares).mean().item() == pytest.approx(variance, rel=0.3)


@pytest.mark.parametrize("zero_core", [0, 1, 2, 3])
@pytest.mark.parametrize("raw_shape", [((1, 1, 1, 24), (24, 1, 1, 1)), ((2, 3, 2, 2), (2, 2, 3, 2))])
def test_an_identity_init_can_learn_a_matrix_of_full_rank(raw_shape, zero_core):
    """With identities in ranks and factors (`identity_`) each bond would always keep rank 1."""
    layer = t3.TTLinear(24, 24, bias=False, raw_shape=raw_shape, tt_rank=4, init="identity", zero_core=zero_core)
    assert not layer.full().any()
    target = layer.cores[zero_core].new_empty(24, 24).normal_()
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.01)
    for _ in range(20):
        optimizer.zero_grad()
        (layer.full() - target).square().sum().backward()
        optimizer.step()
    for k, (core, following) in enumerate(itertools.pairwise(layer.cores)):
        ranks = [torch.linalg.matrix_rank(u) for u in (core.reshape(-1, core.shape[3]), following.flatten(1))]
        assert ranks == [core.shape[3]] * 2, k


@pytest.mark.parametrize("format", ["tensor_basis", "cp", "tucker"])
@pytest.mark.parametrize("init", ["identity", "orthogonal"])
def test_structured_inits_need_cores_that_are_parameters(init, format):
    with pytest.raises(ValueError, match=f"init='{init}' with format='{format}': use a random init"):
        t3.TTLinear(24, 24, init=init, format=format)


@pytest.mark.parametrize("init", ["identity", "orthogonal"])
def test_structured_inits_raise_for_a_ring(init):
    """In a ring of identities around a zero core, most entries never have a gradient."""
    with pytest.raises(ValueError, match="got a ring with r_0 = 2: use a random init"):
        t3.TTLinear(24, 24, init=init, format="tensor_ring", tt_rank=2)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_an_orthogonal_init_in_half_precision_is_rounded_from_float32(dtype):
    layers = []
    for layer_dtype in (dtype, torch.float32):
        torch.manual_seed(0)
        layers.append(t3.TTLinear(24, 24, bias=False, init="orthogonal", tt_rank=4, zero_core=0, dtype=layer_dtype))
    for core, expected in zip(*(layer.cores for layer in layers), strict=True):
        assert torch.equal(core, expected.to(dtype))
    assert layers[0].cores[1].any()
