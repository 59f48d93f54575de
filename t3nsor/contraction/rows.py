"""Rows of the matrix of a chain of cores, looked up by index without building the matrix.

row i = G_1[:, i_1] ... G_d[:, i_d]    (i_1, ..., i_d) are the digits of i in base (m_1, ..., m_d), the last fastest

A bond splits the digits into i1 and i2, and the row is left[i1] (N1, R) times right[:, i2] (R, N2): two look-ups in
small tables and one small product, instead of one product for each core.
"""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from .chains import Sizes, dense, halves
from .precision import autocast_off


def gather_rows(cores: Sequence[Tensor], indices: Tensor) -> Tensor:
    """Return rows of the matrix, indices (...) -> (..., N), in the dtype of the cores and differentiable in them."""
    sizes = Sizes.of(cores)
    flat = indices.reshape(-1)
    with autocast_off(cores[0].device.type):
        bond = table_bond(sizes, flat.shape[0])
        if bond is None:
            rows = F.embedding(flat, dense(cores))  # (b) into (M, N) -> (b, N)
        else:
            M1, N1, M2, N2, R = sizes.split(bond)
            left, right = halves(cores, bond)
            first = F.embedding(flat // M2, left.reshape(M1, N1 * R))  # (b) into (M1, N1 R) -> (b, N1 R)
            if M2 == 1:  # the same for all rows
                rows = first.reshape(-1, R) @ right.reshape(R, N2)  # (b N1, R) x (R, N2)
            else:
                second = F.embedding(flat % M2, right.transpose(0, 1).reshape(M2, R * N2))  # (b) into (M2, R N2)
                rows = first.reshape(-1, N1, R) @ second.reshape(-1, R, N2)  # (b, N1, R) x (b, R, N2) -> (b, N1, N2)
    return rows.reshape(*indices.shape, sizes.shape[1])


def table_bond(sizes: Sizes, count: int) -> int | None:
    """Return the bond at which looking up `count` rows writes the fewest entries; None for a single core."""
    written = []
    for bond in range(1, len(sizes.rows)):
        M1, N1, M2, N2, R = sizes.split(bond)
        written.append(R * (M1 * N1 + M2 * N2) + count * R * (N1 + (N2 if M2 > 1 else 0)))
    return written.index(min(written)) + 1 if written else None
