"""What a contraction needs to know of a tensor network."""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor


class Network(Protocol):
    """A matrix (M, N) in cores (r_{k-1}, m_k, n_k, r_k) of one dtype on one device; see `t3nsor.tensor_network`."""

    @property
    def cores(self) -> Sequence[Tensor]: ...

    @property
    def shape(self) -> tuple[int, int]: ...

    @property
    def dtype(self) -> torch.dtype: ...

    @property
    def device(self) -> torch.device: ...
