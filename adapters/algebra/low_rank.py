"""A delta as the product of two factors, T = B A, and products and distances of trains of different raw shapes.

    B (out, r)    A (r, in)      LoRA's factors, scaling folded in
    train of B A                 cores A^T (1, 1, in, r) and B^T (r, out, 1, 1): raw shape ((1, out), (in, 1)), rank r

Every matrix is such a train, at its matrix rank. For a train whose cores have both rows and columns it is up to
min(out, in), which is exact but as large as the dense matrix.
"""

import torch
from torch import Tensor

import t3nsor as t3


def is_low_rank(train: t3.TensorTrain) -> bool:
    """Return whether the two cores of a train are the factors A and B."""
    rows, columns = train.raw_shape
    return len(rows) == 2 and rows[0] == columns[1] == 1


def with_useful_ranks(train: t3.TensorTrain) -> t3.TensorTrain:
    """Return the same matrix with no rank beyond the largest useful one, as layers require."""
    ranks, (rows, columns) = train.ranks, train.raw_shape
    sizes = [m * n for m, n in zip(rows, columns, strict=True)]
    is_useful = all(ranks[k] <= min(ranks[k - 1] * sizes[k - 1], sizes[k] * ranks[k + 1]) for k in range(1, len(sizes)))
    return train if is_useful else train.round()


def inner_product(a: t3.TensorTrain, b: t3.TensorTrain) -> Tensor:
    """Return the Frobenius inner product; dense if raw shapes differ and neither train is low-rank factors."""
    if a.raw_shape == b.raw_shape:
        return a.dot(b)
    if is_low_rank(a):
        a, b = b, a
    if is_low_rank(b):
        A, B = b.cores[0][0, 0].mT, b.cores[1][:, :, 0, 0].mT  # (in, r) -> (r, in), (r, out) -> (out, r)
        return ((a @ A.mT) * B).sum()  # (out, in) x (in, r) -> (out, r)
    return (a.full() * b.full()).sum()


def distance(a: t3.TensorTrain, b: t3.TensorTrain) -> Tensor:
    """Return || a - b ||, from orthogonal cores, or from dense matrices if raw shapes differ."""
    if a.raw_shape == b.raw_shape:
        return (a - b).norm()
    return torch.linalg.matrix_norm(a.full() - b.full())
