"""FactorizedLinear: y = x W^T + b with W (out, in) a tensor network and no dense weight.

    cores      G_k (r_{k-1}, m_k, n_k, r_k)
    scalars    (r_1,), a factor for each index of the first bond, of a sum of Kronecker products or of rank-one terms
    shared     cores that several linears have in common, of the one that owns them
    bias       (out,), the Parameter of the linear that was replaced

The product is computed by ``t3nsor.matmul``, which at every call chooses between the cores and the dense matrix, built
once for that call, by the number of vectors.
"""

import bisect
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

import t3nsor as t3
from adapters.base.linear_layers import features
from adapters.configuration import as_lists
from adapters.tensor_train.modes import RawShape
from adapters.validation import from_json
from t3nsor.contraction import gather_rows


@dataclass(frozen=True)
class NetworkSpec:
    """All that is needed to build the network of one linear without its values.

    Args:
        linear: the class that was replaced; an embedding's table is W (out, in) with a row for each token.
        raw_shape: ((m_1..m_d), (n_1..n_d)), out first.
        ranks: (r_0, ..., r_d).
        format: "tensor_train" or "tensor_ring".
        frozen_cores: cores that do not train.
        scalars: whether each index of the first bond has a factor.
        own_core: the only core that is this linear's own, if it shares others; None for none.
        owner: the path of the linear that holds the shared cores, which may be this one; None if none are shared.
    """

    linear: Literal["Linear", "Conv1D", "Embedding"]
    raw_shape: RawShape
    ranks: tuple[int, ...]
    format: Literal["tensor_train", "tensor_ring"] = "tensor_train"
    frozen_cores: tuple[int, ...] = ()
    scalars: bool = False
    own_core: int | None = None
    owner: str | None = None

    @property
    def core_shapes(self) -> list[tuple[int, int, int, int]]:
        """(r_{k-1}, m_k, n_k, r_k) of each core."""
        return list(zip(self.ranks[:-1], *self.raw_shape, self.ranks[1:], strict=True))

    @property
    def parameters(self) -> int:
        """The number of parameters in place of those of the weight."""
        cores = sum(r * m * n * s for r, m, n, s in self.core_shapes)
        return cores + (self.ranks[1] if self.scalars else 0)

    def is_borrowed(self, path: str) -> bool:
        """Whether the linear at ``path`` has no core of its own."""
        return self.owner not in (None, path) and self.own_core is None

    def __str__(self) -> str:
        shape = " ".join(f"{m}x{n}" for m, n in zip(*self.raw_shape, strict=True))
        interior = self.ranks[1:-1] if self.format == "tensor_train" else self.ranks[:-1]
        return f"{shape} rank {','.join(map(str, interior))}" if interior else shape

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form, which ``from_dict`` reads."""
        return {key: as_lists(value) for key, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "NetworkSpec":
        """Build it from its JSON form; ConfigurationError if that is none."""
        return from_json(cls, values, "a factorized weight")


def rank_within(format: str, raw_shape: RawShape, parameters: int, scalars: bool = False) -> int:
    """The largest useful rank of a network with at most so many parameters; 0 if rank 1 has more."""

    def ranks_for(rank: int) -> tuple[int, ...]:
        return tuple(t3.FORMATS[format].resolve_ranks(raw_shape, rank))

    def count(rank: int) -> int:
        return NetworkSpec("Linear", raw_shape, ranks_for(rank), format, scalars=scalars).parameters

    if parameters < 1:
        return 0
    most = max(ranks_for(parameters))
    return bisect.bisect_right(range(1, most + 1), parameters, key=count)


class FactorizedLinear(t3.TTLinear):
    """A linear with a tensor network as its weight; the cores hold no values until ``set_network``.

    Args:
        spec: the network.
        bias: that of the linear that is replaced; None for none.
    """

    def __init__(self, spec: NetworkSpec, bias: nn.Parameter | None = None) -> None:
        (rows, columns), ranks = spec.raw_shape, spec.ranks
        super().__init__(
            torch.Size(columns).numel(),
            torch.Size(rows).numel(),
            bias=False,
            tt_rank=ranks if spec.format == "tensor_train" else ranks[:-1],
            raw_shape=spec.raw_shape,
            frozen_cores=spec.frozen_cores,
            format=spec.format,
            device="meta",
        )
        self.spec = spec
        self.bias = bias
        self.scalars = nn.Parameter(torch.empty(ranks[1], device="meta")) if spec.scalars else None

    def share_cores(self, owner: "FactorizedLinear") -> None:
        """Read all cores but the own one from ``owner``, which may be this linear, from now on."""
        if owner is self:
            self.shared = nn.ParameterDict({_key(k): self.cores[k] for k in self._shared_cores()})
        for k in self._shared_cores():
            self.share(k, owner.shared, _key(k))

    def set_network(self, cores: list[Tensor], requires_grad: bool = True) -> None:
        """Let the Parameters be these cores, of one dtype on one device, also those that it owns for others."""
        shared = self._shared_cores()
        for k, core in enumerate(cores):
            if k not in shared:
                self.cores[k] = nn.Parameter(core, requires_grad)
            elif hasattr(self, "shared"):
                self.shared[_key(k)] = nn.Parameter(core, requires_grad)
        if self.spec.scalars:  # 1 at the start
            self.scalars = nn.Parameter(torch.ones_like(cores[0][0, 0, 0]), requires_grad)
        self.freeze_cores()

    def _shared_cores(self) -> list[int]:
        if self.spec.owner is None:
            return []
        return [k for k in range(len(self.core_shapes)) if k != self.spec.own_core]

    def live_cores(self) -> list[Tensor]:
        """Return the cores, the first one times the scalars."""
        first, *others = super().live_cores()
        scalars = self._parameters.get("scalars")
        return [first if scalars is None else first * scalars, *others]

    @property
    def weight(self) -> Tensor:
        """The dense weight as the replaced linear would store it, built at each access; for parents that read it."""
        return self.full().T if self.spec.linear == "Conv1D" else self.full()

    def plain(self) -> nn.Module:
        """The linear of the replaced class with the dense weight, a new Parameter, and the same bias."""
        weight = nn.Parameter(self.weight.detach().contiguous(), requires_grad=any_trains(self))
        if self.spec.linear == "Conv1D":
            linear = Conv1D.__new__(Conv1D)
            nn.Module.__init__(linear)
            linear.nx, linear.nf = self.in_features, self.out_features
        else:
            linear = nn.Linear.__new__(nn.Linear)
            nn.Module.__init__(linear)
            linear.in_features, linear.out_features = self.in_features, self.out_features
        linear.weight, linear.bias = weight, self.bias
        return linear.train(self.training)


class FactorizedEmbedding(FactorizedLinear):
    """An embedding whose table (tokens, features) is a network; rows are looked up in the cores.

    Args:
        padding_idx: that of the embedding that is replaced, for ``plain``.
    """

    def __init__(self, spec: NetworkSpec, padding_idx: int | None = None) -> None:
        super().__init__(spec)
        self.padding_idx = padding_idx

    def forward(self, ids: Tensor) -> Tensor:
        """Return rows, ids (...) -> (..., features)."""
        return gather_rows(self.live_cores(), ids)

    def plain(self) -> nn.Embedding:
        """The embedding with the dense table."""
        table = self.weight.detach().contiguous()
        embedding = nn.Embedding.from_pretrained(table, freeze=not any_trains(self), padding_idx=self.padding_idx)
        return embedding.train(self.training)


def factorized_like(module: nn.Module, spec: NetworkSpec) -> FactorizedLinear:
    """The network, without values, that takes the place of a linear or an embedding."""
    if isinstance(module, nn.Embedding):
        return FactorizedEmbedding(spec, module.padding_idx).train(module.training)
    return FactorizedLinear(spec, module.bias).train(module.training)


def sizes(module: nn.Module) -> tuple[int, int]:
    """(in, out) of a linear; of an embedding features and tokens."""
    return (module.embedding_dim, module.num_embeddings) if isinstance(module, nn.Embedding) else features(module)


def _key(k: int) -> str:
    """The name of a shared core in a ParameterDict."""
    return f"core_{k}"


def any_trains(module: nn.Module) -> bool:
    """Whether any of the parameters has a gradient."""
    return any(parameter.requires_grad for parameter in module.parameters())


def token_embedding(model: nn.Module) -> nn.Module | None:
    """The input embedding that a model of transformers names; None for any other model, or one without tokens."""
    try:
        return model.get_input_embeddings() if isinstance(model, PreTrainedModel) else None
    except NotImplementedError:
        return None


def factorized_modules(model: nn.Module) -> dict[str, FactorizedLinear]:
    """The factorized linears of a model by path."""
    return {path: module for path, module in model.named_modules() if isinstance(module, FactorizedLinear)}
