"""Fixtures of the contraction tests: sizes, the names of all strategies, and a step by a plan and by dense algebra."""

import pytest
import torch

import t3nsor as t3

RAW_SHAPES = [
    ((5,), (4,)),
    ((1,), (3,)),
    ((2, 3), (4, 2)),
    ((6, 1), (4, 2)),
    ((1, 12), (5, 1)),
    ((2, 3, 4), (3, 2, 2)),
    ((1, 1, 12), (4, 3, 2)),
    ((1, 1, 4, 3), (3, 2, 1, 1)),
    ((2, 1, 3, 2), (1, 3, 2, 2)),
    ((6, 4, 1, 1), (1, 1, 3, 4)),
    ((6, 1, 1, 1), (1, 1, 1, 4)),
    ((1, 4, 1), (1, 3, 1)),
    ((2, 2, 2, 2, 2), (2, 1, 2, 1, 2)),
]


@pytest.fixture(params=RAW_SHAPES, ids=str)
def raw_shape(request):
    """Factors of one to five cores, some of them 1."""
    return request.param


@pytest.fixture(params=["tensor_train", "tensor_ring"])
def format(request):
    """The formats whose chains of cores differ: open and closed."""
    return request.param


@pytest.fixture
def strategies_of():
    """A function from a number of cores to the names of all strategies."""

    def names(cores):
        bonds = range(1, cores)
        halves = [f"{kind}@{bond}" for kind in ("halves", "expanded") for bond in bonds]
        return ["sequential", "sequential_reversed", *halves, "materialised", "fused"]

    return names


@pytest.fixture
def random_network():
    """A function that returns a small network, by default in float64."""

    def make(raw_shape=((2, 3, 4), (3, 2, 2)), rank=3, format="tensor_train", dtype=torch.float64):
        return t3.random_matrix(raw_shape, rank, format=format, dtype=dtype)

    return make


@pytest.fixture
def step():
    """A function that returns y and the gradients of x, the cores and the optional bias, by a plan."""

    def run(plan, network, x, g, weight=None, bias=None):
        x, *cores = (tensor.detach().requires_grad_() for tensor in (x, *network.cores))
        given = [] if bias is None else [bias.detach().requires_grad_()]
        y = t3.matmul(x, type(network)(cores), plan, weight=weight, bias=given[0] if given else None)
        return [y.detach(), *torch.autograd.grad(y, [x, *cores, *given], g)]

    return run


@pytest.fixture
def dense_step():
    """The same in float64 by definition: torch's autograd through the dense matrix."""

    def run(network, x, g, weight=None, bias=None):
        x, *cores = (tensor.detach().double().requires_grad_() for tensor in (x, *network.cores))
        given = [] if bias is None else [bias.detach().double().requires_grad_()]
        d, operands = len(cores), []
        for k, core in enumerate(cores):
            operands += [core, [k, d + k, 2 * d + k, (k + 1) % d]]
        matrix = cores[0].diagonal(dim1=0, dim2=3).sum(-1)
        if d > 1:
            matrix = torch.einsum(*operands, list(range(d, 3 * d))).reshape(network.shape)
        y = x @ (matrix if weight is None else matrix + weight.double()).T + (given[0] if given else 0)
        return [y.detach(), *torch.autograd.grad(y, [x, *cores, *given], g.double())]

    return run


@pytest.fixture
def relative_error():
    """A function that returns the norm of the error divided by the norm of the truth."""

    def error(found, truth):
        return ((found.double() - truth).norm() / truth.norm()).item()

    return error
