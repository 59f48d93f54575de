"""FactorizedConfig: which weights are replaced by tensor networks, by networks of which shape, and where these start.

format          W (out, in) =                                          fields
kronecker       sum of r products A (m1, n1) x B (m2, n2), "x" the     first_shape [m1, n1], factors r
                Kronecker product: a train of two cores
tensor_train    G_1 G_2 ... G_d                                        d, raw_shape, shape_mode, rank
tensor_ring     the same with r_0 = r_d > 1                            d, raw_shape, shape_mode, rank
low_rank        B (out, r) A (r, in): a train whose first core holds   rank
                all inputs, the second one all outputs

start           decomposition | norm_corrected | pruned | random       ``adapters.factorized.starts``
whiten          none | kronecker | full                                ``adapters.factorized.whitening``
"""

import re
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Literal, get_type_hints

from adapters.base.targets import Targets, check_targets
from adapters.checked_fields import CheckedFields
from adapters.configuration import as_lists
from adapters.tensor_train import checks
from adapters.tensor_train.layer_shape import ShapeMode
from adapters.tensor_train.modes import RawShape
from adapters.validation import ConfigurationError, check_keys, check_type

Rank = int | tuple[int, ...]
FEED_FORWARD = "feed_forward"
"""The ``target_modules`` that stand for the linears of the feed-forward sublayers."""
EMBEDDING = "embedding"
"""The ``target_modules`` that stand for the embedding of the tokens, with the output projection if it is tied."""
SHARED_BASIS = "shared_basis"
"""The format with a small core for each layer."""
TRAIN_FIELDS = ("d", "raw_shape", "shape_mode", "rank")
FIELDS = {
    "kronecker": ("first_shape", "factors"),
    "tensor_train": TRAIN_FIELDS,
    "tensor_ring": TRAIN_FIELDS,
    "low_rank": ("rank",),
    SHARED_BASIS: ("rank", "layers_per_basis"),
    "searched": (),
}
"""The fields that give the shape of a network, by format."""
RANK_LISTS = ("tensor_train", "tensor_ring", SHARED_BASIS)
"""Formats that have several bonds."""
WITH_TERMS = ("kronecker", "low_rank")
"""Formats that are sums of terms, one for each index of their only bond."""


@dataclass(frozen=True, kw_only=True)
class FactorizedConfig(CheckedFields):
    """Which linears are replaced, and by what.

    Args:
        target_modules: "feed_forward"; "embedding", see ``adapters.factorized.embedding``; or names, roles or a regular
            expression, see ``adapters.base.targets``.
        exclude_modules: those of them that stay as they are, likewise.
        layers: block indices, from 0; None for all blocks.
        format: see the head of this file.
        first_shape: rows and columns of the first Kronecker factor, with W as (out, in); or a dictionary of them by the
            ends of paths. If one shape serves linears of swapped sizes, such as both feed-forward matrices, the output
            matrix takes it transposed.
        factors: the number of Kronecker products.
        d: the number of cores; by default that of raw_shape, or 3.
        raw_shape: ((m_1..m_d), (n_1..n_d)), the factors of out and in; a linear of swapped sizes gets them swapped.
        shape_mode: how the factors are chosen without raw_shape, see ``t3nsor.tt_shape``; "ascending" by default.
        rank: of every bond (cut to the largest useful one; in a ring refused if it has more parameters than the
            weight), or the list of the interior ranks (in a ring all d, in a shared basis those of inputs and outputs).
        rank_pattern: rank, or number of factors, of single linears by the ends of their paths, see
            ``adapters.tensor_train.patterns``.
        budget: the share of the parameters of the replaced weights that the networks may have, instead of a rank.
        allocation: whether every linear gets that share ("uniform"), or those whose error each parameter lowers most
            get more ("error", in networks of two cores), see ``adapters.factorized.budgets``.
        stack: linears of one module and one input, by the ends of their paths, whose rows are factorized as one matrix:
            they share all cores but the first one with rows, of which each has its part. [["gate_proj", "up_proj"]] as
            low rank is one input core and an output core for each.
        layers_per_basis: how many layers, one after another, have a basis in common; None for all.
        frozen_cores: cores that keep their initial value.
        scalars: whether each term of a "kronecker" or "low_rank" has a factor of its own that trains, initially 1.
        start: the initial value, see ``adapters.factorized.starts``.
        whiten: how a decomposition weighs the inputs by their second moments: not at all, by a Kronecker product of
            one matrix for each core, or by the whole matrix; the last two need a calibration.
    """

    where: ClassVar[str] = "a factorization"
    stacks: ClassVar[tuple[str, ...]] = ("encoder", "decoder")
    sublayers: ClassVar[tuple[str, ...]] = ("self_attention", "cross_attention", "feed_forward")

    target_modules: Targets = FEED_FORWARD
    exclude_modules: Targets | None = None
    layers: tuple[int, ...] | None = None
    format: Literal["kronecker", "tensor_train", "tensor_ring", "low_rank", "shared_basis", "searched"] = "kronecker"
    first_shape: tuple[int, int] | dict[str, tuple[int, int]] | None = field(default=None, hash=False)
    factors: int | None = None
    d: int | None = None
    raw_shape: RawShape | None = None
    shape_mode: ShapeMode | None = None
    rank: Rank | None = None
    layers_per_basis: int | None = None
    rank_pattern: dict[str, Rank] | None = field(default=None, hash=False)
    budget: float | None = None
    allocation: Literal["uniform", "error"] = "uniform"
    stack: tuple[tuple[str, ...], ...] = ()
    frozen_cores: tuple[int, ...] = ()
    scalars: bool = False
    start: Literal["decomposition", "norm_corrected", "pruned", "random"] = "decomposition"
    whiten: Literal["none", "kronecker", "full"] = "none"

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self))
        for entry in fields(self):
            self._set(**{entry.name: check_type(entry.name, getattr(self, entry.name), hints[entry.name], self.where)})
        for key in ("target_modules", "exclude_modules"):
            if getattr(self, key) == ():
                self.refuse(key, "needs at least one name", "an empty list", "leave it out for the default")
            check_targets(self, key, getattr(self, key))
        if self.layers is not None and (not self.layers or min(self.layers) < 0):
            self.refuse("layers", "must hold block indices from 0", list(self.layers), "use null for all blocks")
        self._check_fields_of_format()
        self._check_budget()
        self._check_shape()
        self._check_cores()
        self._check_start()

    def _check_fields_of_format(self) -> None:
        known = FIELDS[self.format]
        for key in sorted({key for keys in FIELDS.values() for key in keys}):
            if key not in known and getattr(self, key) is not None:
                fix = f"leave it out; the fields of this format are {', '.join(known) or 'budget and whiten'}"
                self.refuse(key, f"does not belong to the format {self.format!r}", as_lists(getattr(self, key)), fix)
        if self.scalars and self.format not in WITH_TERMS:
            given = f"true with {self.format!r}"
            self.refuse("scalars", f"belongs to the formats {' and '.join(WITH_TERMS)}", given, "leave it out")

    def _check_budget(self) -> None:
        if self.budget is None and (self.format == "searched" or self.allocation == "error"):
            rule = 'is required by the format "searched" and by the allocation "error"'
            self.refuse("budget", rule, "none", "write for example .5")
        if self.budget is not None and not 0 < self.budget <= 1:
            rule = "is a share of the parameters of the replaced weights"
            self.refuse("budget", rule, self.budget, "write a number above 0 and up to 1")
        if self.budget is not None and (self.general_rank is not None or self.rank_pattern):
            given = f"{self.budget} together with {self.ranks_key} or rank_pattern"
            self.refuse("budget", "gives the ranks", given, "drop one of the two")
        if self.allocation == "error" and self.format not in WITH_TERMS:
            rule = f"of this name is for the formats {' and '.join(WITH_TERMS)}, whose errors are known for all ranks"
            self.refuse("allocation", rule, f"'error' with {self.format!r}", 'use "uniform"')
        if self.format == "searched" and self.whiten == "none":
            self.refuse("whiten", "is required by the format 'searched'", "'none'", 'write "full"')

    def _check_shape(self) -> None:
        if self.format == "kronecker":
            if self.budget is None:
                self._set(factors=1 if self.factors is None else self.factors)
            if self.first_shape is None:
                self.refuse(
                    "first_shape", "is required by the format 'kronecker'", "none", "write for example [64, 32]"
                )
            shapes = self.first_shape.values() if isinstance(self.first_shape, dict) else [self.first_shape]
            if not shapes or min(size for shape in shapes for size in shape) < 1:
                self.refuse("first_shape", "is two positive sizes", as_lists(self.first_shape), "write [64, 32]")
        elif self.rank is None and self.budget is None:
            self.refuse("rank", f"is required by the format {self.format!r}", "none", "write for example 64")
        ranks = [(self.ranks_key, self.general_rank)] if self.budget is None else []
        for key, rank in (*ranks, *(("rank_pattern", rank) for rank in (self.rank_pattern or {}).values())):
            checks.check_rank(self, key, rank)
            if not isinstance(rank, int) and self.format not in RANK_LISTS:
                self.refuse(key, f"is one number in the format {self.format!r}", list(rank), "write one")
        for key in self.patterns():
            for name in getattr(self, key):
                try:
                    re.compile(name)
                except re.error as error:
                    rule = "must have keys that are ends of paths or regular expressions"
                    self.refuse(key, rule, f"{name!r} ({error})", "escape characters that are meant literally")

    def _check_cores(self) -> None:
        if self.raw_shape is not None:
            checks.check_shape(self, "raw_shape", self.raw_shape)
            if self.shape_mode is not None:
                given = f"{self.shape_mode!r} together with a raw_shape"
                self.refuse("shape_mode", "chooses the factors that raw_shape would give", given, "drop one of the two")
        if self.shape_mode == "cheapest" and self.budget is not None:
            rule = "'cheapest' chooses the factors by the rank"
            self.refuse("shape_mode", rule, "'cheapest' with a budget", "give a rank, or leave shape_mode out")
        if "d" in FIELDS[self.format]:
            self._set(d=checks.resolve_number_of_cores(self, {"raw_shape": self.raw_shape and len(self.raw_shape[0])}))
        for core in self.frozen_cores:
            if not -self.cores <= core < self.cores:
                given, fix = core, f"use 0 to {self.cores - 1}"
                self.refuse("frozen_cores", "must hold indices of cores", given, fix)
        self._set(frozen_cores=tuple(sorted({core % self.cores for core in self.frozen_cores})))

    def _check_start(self) -> None:
        if self.target_modules == EMBEDDING:
            self._check_embedding()
        for names in self.stack:
            if len({*names}) < 2 or len({*names}) < len(names):
                rule = "is lists of at least two different names"
                self.refuse("stack", rule, as_lists(self.stack), 'write [["gate_proj", "up_proj"]]')
        self.check_positive("layers_per_basis", "4")
        if self.stack and self.format == SHARED_BASIS:
            self.refuse("stack", "is not supported in a shared basis", as_lists(self.stack), "leave it out")
        if self.stack and self.scalars:
            self.refuse("scalars", "is not supported with stack", True, "leave it out")
        if self.whiten != "none" and self.start != "decomposition":
            rule = "weighs the error of a decomposition"
            self.refuse("whiten", rule, f"{self.whiten!r} with start={self.start!r}", 'use start "decomposition"')
        if self.whiten != "none" and self.format == "tensor_ring":
            self.refuse("whiten", "is not supported in a tensor_ring", repr(self.whiten), "use a tensor_train")
        if self.start == "pruned" and (self.format != "kronecker" or self.factors != 1 or self.rank_pattern):
            given = f"'pruned' with {self.general_rank} factors in the format {self.format!r}"
            rule = "keeps a part of the rows and columns as the first factor of one Kronecker product"
            self.refuse("start", rule, given, 'use "decomposition"')

    def _check_embedding(self) -> None:
        unsupported = {
            "exclude_modules": self.exclude_modules,
            "layers": self.layers,
            "stack": self.stack,
            "scalars": self.scalars,
        }
        for key, value in unsupported.items():
            if value:
                self.refuse(key, "does not belong to the embedding", as_lists(value), "leave it out")
        if self.format in (SHARED_BASIS, "searched") or (self.whiten != "none" and self.format != "low_rank"):
            given = f"{self.format!r} with whiten={self.whiten!r}"
            self.refuse("format", "of a calibrated embedding is low_rank", given, 'use "low_rank", or whiten "none"')
        if self.allocation == "error":
            self.refuse("allocation", "is uniform for the embedding", "'error'", "leave it out")

    @property
    def cores(self) -> int:
        """The number of cores of each network."""
        return self.d if "d" in FIELDS[self.format] else 3 if self.format == SHARED_BASIS else 2

    @property
    def ranks_key(self) -> str:
        """The field that holds the rank: "factors" or "rank"."""
        return "factors" if self.format == "kronecker" else "rank"

    @property
    def general_rank(self) -> Rank:
        """The rank where ``rank_pattern`` gives no other."""
        return getattr(self, self.ranks_key)

    def patterns(self) -> list[str]:
        """The fields that are dictionaries by the ends of paths."""
        return [key for key in ("first_shape", "rank_pattern") if isinstance(getattr(self, key), dict)]

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "FactorizedConfig":
        """Build the configuration of a JSON object; ConfigurationError for an unknown key or an invalid value."""
        if not isinstance(values, dict):
            raise ConfigurationError(
                f"A factorization must be an object; got {values!r}: "
                'write for example {"format": "low_rank", "rank": 64}.'
            )
        check_keys(values, [entry.name for entry in fields(cls)], cls.where)
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form, which ``from_dict`` reads back as an equal configuration."""
        return {entry.name: as_lists(getattr(self, entry.name)) for entry in fields(self)}


def as_factorizations(config: Any) -> list[FactorizedConfig]:
    """A FactorizedConfig, its dictionary, or a list of either, as a list of FactorizedConfig."""
    entries = config if isinstance(config, list | tuple) else [config]
    if not entries:
        raise ConfigurationError("A list of factorizations must have at least one; got an empty list: add one.")
    return [entry if isinstance(entry, FactorizedConfig) else FactorizedConfig.from_dict(entry) for entry in entries]
