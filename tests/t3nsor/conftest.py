"""An oracle for the formats that is independent of t3nsor: numpy's einsum of the definition, in float64."""

import numpy as np
import pytest
import torch


def dense_by_definition(cores) -> torch.Tensor:
    """W[(i_1..i_d), (j_1..j_d)] = sum over all ranks a of prod_k G_k[a_{k-1}, i_k, j_k, a_k], with a_d = a_0."""
    d = len(cores)
    operands = []
    for k, core in enumerate(cores):
        operands += [core.detach().double().numpy(), [k, d + k, 2 * d + k, (k + 1) % d]]
    tensor = np.einsum(*operands, list(range(d, 3 * d)), optimize=True)  # (m_1, ..., m_d, n_1, ..., n_d)
    return torch.from_numpy(tensor.reshape(int(np.prod(tensor.shape[:d])), -1))


@pytest.fixture
def dense_of():
    """The function from a list of cores to their dense matrix in float64."""
    return dense_by_definition


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _shipped_coefficients(monkeypatch, tmp_path_factory):
    """Ignore the coefficients measured on the machine that runs the tests."""
    monkeypatch.setenv("T3NSOR_CACHE", str(tmp_path_factory.getbasetemp() / "nothing_measured"))
