"""The gradient that a layer's zero core has at the start, for a gradient of the weight with independent entries.

W = full() is linear in the entry e of the zero core, and a sum over paths of products of the other entries:

    dL/dG_z[e] = sum_ij g_ij T_ij[e]        g_ij = dL/dW_ij independent, of mean 0 and variance 1
    E (dL/dG_z[e])^2 = E sum_ij T_ij[e]^2   T[e] = dW/dG_z[e], (out, in)

Two paths differ in an entry of mean 0, so only the squares of the products are left, and E T_ij[e]^2 is the same sum
over paths of the same products with each entry replaced by its mean square. Therefore

    E (dL/dG_z[e])^2 = d/dG_z[e] of the sum of all entries of W, with the mean squares in place of the entries

for every format whose cores are sums of products of its parameters. The sum of all entries is a product of small
matrices, sum_ij G_k (r_{k-1}, r_k). "identity" is not random, but each entry of its T[e] has one path at most; entries
of "orthogonal" cores depend on each other, but those of two paths are uncorrelated.
"""

import copy
from functools import reduce

import torch
from torch import Tensor

from .initializers import identity_, mean_squares_
from .linear import TTLinear


def first_gradient(layer: TTLinear) -> Tensor:
    """Return E (dL/dG_z)^2 in the shape of the zero core's Parameter, in float64.

    Args:
        layer: with a zero core; its values are not read, and it may be on the meta device.

    Raises:
        ValueError: no core starts at zero.
    """
    if layer.zero_core is None:
        raise ValueError("The gradient is that of the core that starts at zero; got zero_core=None: choose a core.")
    twin = copy.deepcopy(layer).to_empty(device="cpu").to(torch.float64)
    with torch.no_grad():
        twin.cores.set_mean_squares(lambda cores: mean_squares_(cores, layer.init, layer.zero_core))
        for k in layer.disabled_cores:
            identity_(twin.live_cores()[k])
    with torch.enable_grad():
        sums = [core.sum(dim=(1, 2)) for core in twin.live_cores()]  # (r_{k-1}, m_k, n_k, r_k) -> (r_{k-1}, r_k)
        total = reduce(torch.matmul, sums).trace()  # (r_0, r_d), r_d = r_0
        return torch.autograd.grad(total, twin.cores.zero_parameter(layer.zero_core))[0]
