"""What the tensor-train layers have in common: the cores as parameters, and the train they stand for.

raw_shape  ((m_1, ..., m_d), (n_1, ..., n_d))       ranks  (1, r_1, ..., r_{d-1}, 1)
cores      nn.ParameterList of (r_{k-1}, m_k, n_k, r_k); the only place where the numbers live
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .shapes import RawShape, check_factors, check_product, factorize, positive_int
from .tensor_train import TensorTrain


class TTModule(nn.Module):
    """A module whose weight is a tensor train; a subclass sets values in `reset_parameters()`, in place.

    Args:
        raw_shape: ((m_1, ..., m_d), (n_1, ..., n_d)), already checked.
        tt_rank: an int, clipped at each bond to what the bond can use, or a list of d - 1 ranks, refused if of no use.
    """

    def __init__(
        self,
        raw_shape: RawShape,
        tt_rank: int | Sequence[int],
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__()
        self.raw_shape = raw_shape
        self.ranks = TensorTrain.resolve_ranks(raw_shape, tt_rank)
        shapes = TensorTrain.core_shapes(raw_shape, tt_rank)
        self.cores = nn.ParameterList(torch.empty(shape, device=device, dtype=dtype) for shape in shapes)

    def tensor_train(self) -> TensorTrain:
        """The weight as a train over the live parameters: gradients flow into them."""
        return TensorTrain(self.cores)

    def full(self) -> Tensor:
        """The dense weight, differentiable in the cores."""
        return self.tensor_train().full()


def vector_shape(features: int, name: str, d: int, raw_shape: Sequence[int] | None) -> RawShape:
    """The raw shape ((m_1, ..., m_d), (1, ..., 1)) of a TT vector, from its factors or, where they are None, from d."""
    features = positive_int(features, name)
    factors = factorize(features, d) if raw_shape is None else check_factors(raw_shape, "raw_shape")
    check_product(factors, features, name)
    return factors, (1,) * len(factors)
