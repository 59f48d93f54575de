"""What the tensor-train layers have in common: the cores as parameters, and the train they stand for.

raw_shape  ((m_1, ..., m_d), (n_1, ..., n_d))       ranks  (1, r_1, ..., r_{d-1}, 1)
cores      nn.ParameterList of (r_{k-1}, m_k, n_k, r_k), the only place where the numbers live; a shared core's slot is
           None, and the core is read from the ParameterDict that owns it

A frozen core keeps its start value; a disabled one is held at the identity-like element that its layer documents. Of
both, requires_grad is False.
"""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from .shapes import RawShape, check_factors, check_product, factorize, index_below, positive_int
from .tensor_train import TensorTrain


class TTModule(nn.Module):
    """A module whose weight is a tensor train; a subclass sets values in `reset_parameters()`, in place.

    Args:
        raw_shape: ((m_1, ..., m_d), (n_1, ..., n_d)), already checked.
        tt_rank: an int, clipped at each bond to what the bond can use, or a list of d - 1 ranks, refused if of no use.
        frozen_cores, disabled_cores: indices of cores, negative ones from the end; see the head of this file.
    """

    def __init__(
        self,
        raw_shape: RawShape,
        tt_rank: int | Sequence[int],
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        frozen_cores: Iterable[int] = (),
        disabled_cores: Iterable[int] = (),
    ):
        if dtype is not None and not dtype.is_floating_point:
            raise TypeError(f"dtype must be a floating-point one, but {dtype} was given; use e.g. torch.float32.")
        super().__init__()
        self.raw_shape = raw_shape
        self.core_shapes = TensorTrain.core_shapes(raw_shape, tt_rank)
        self.cores = nn.ParameterList(torch.empty(shape, device=device, dtype=dtype) for shape in self.core_shapes)
        self._shared_cores: dict[int, tuple[nn.ParameterDict, str]] = {}
        self.frozen_cores = self._core_indices(frozen_cores, "frozen_cores")
        self.disabled_cores = self._core_indices(disabled_cores, "disabled_cores")
        if both := sorted(set(self.frozen_cores) & set(self.disabled_cores)):
            raise ValueError(
                f"A core is either frozen or disabled, but {both} are in both lists; a disabled core is never trained, "
                "so take them out of frozen_cores."
            )
        self.freeze_cores()

    @property
    def ranks(self) -> tuple[int, ...]:
        """(1, r_1, ..., r_{d-1}, 1)."""
        return (1, *(shape[3] for shape in self.core_shapes))

    def live_cores(self) -> list[nn.Parameter]:
        """The cores as they are now, shared ones included."""
        cores = list(self.cores)
        for k, (owner, key) in self._shared_cores.items():
            cores[k] = owner[key]
        return cores

    def freeze_cores(self) -> None:
        """Set requires_grad of the frozen and the disabled cores to False, as when the layer was built."""
        cores = self.live_cores()
        for k in (*self.frozen_cores, *self.disabled_cores):
            cores[k].requires_grad_(False)

    def tensor_train(self) -> TensorTrain:
        """The weight as a train over the live parameters: gradients flow into them."""
        return TensorTrain(self.live_cores())

    def full(self) -> Tensor:
        """The dense weight, differentiable in the cores."""
        return self.tensor_train().full()

    def shareable(self) -> dict[int, nn.Parameter]:
        """The cores that could be shared, by index: all but the disabled ones."""
        return {k: core for k, core in enumerate(self.live_cores()) if k not in self.disabled_cores}

    def share(self, index: int, owner: nn.ParameterDict, key: str) -> None:
        """From now on read core `index` from `owner[key]`, a Parameter of the same shape.

        The owner must be a module elsewhere in the model: it holds the core in the state_dict and in `parameters()`,
        and this layer's own slot in `cores` becomes None. A copy or a pickle of the whole model keeps the sharing.
        A frozen core freezes the owner's; a disabled one must not be shared.

        Raises:
            KeyError: the owner does not hold `key`.
            TypeError, ValueError: no such core or a disabled one, an owner of another type, or a core of another shape.
        """
        k = index_below(index, len(self.cores), "index")
        if k in self.disabled_cores:
            raise ValueError(f"A shared core must not be disabled, but core {k} is; take it out of disabled_cores.")
        if not isinstance(owner, nn.ParameterDict):
            given = type(owner).__name__
            raise TypeError(f"owner must be an nn.ParameterDict, but it is a {given}; put the core into one.")
        if key not in owner:
            raise KeyError(f"owner must hold the core to share, but it has no {key!r}; put the core there first.")
        if owner[key].shape != self.core_shapes[k]:
            raise ValueError(
                f"A shared core must have the shape of the core that it replaces, {self.core_shapes[k]}, but {key!r} "
                f"has {tuple(owner[key].shape)}; share only between layers of the same shape and rank."
            )
        self.cores[k] = None
        self._shared_cores[k] = (owner, key)
        self.freeze_cores()

    def _core_indices(self, indices: Iterable[int], name: str) -> tuple[int, ...]:
        if isinstance(indices, str) or not isinstance(indices, Iterable):
            raise TypeError(f"{name} must be a sequence of indices, but {indices!r} was given; pass e.g. (0, -1).")
        return tuple(sorted({index_below(index, len(self.cores), f"each of {name}") for index in indices}))


def vector_shape(features: int, name: str, d: int, raw_shape: Sequence[int] | None) -> RawShape:
    """The raw shape ((m_1, ..., m_d), (1, ..., 1)) of a TT vector, from its factors or, where they are None, from d."""
    features = positive_int(features, name)
    factors = factorize(features, d) if raw_shape is None else check_factors(raw_shape, "raw_shape")
    check_product(factors, features, name)
    return factors, (1,) * len(factors)
