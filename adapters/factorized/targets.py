"""Target: one or several weights, and the network that takes their place."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from adapters.base.linear_layers import as_out_in
from adapters.factorized.configuration import FactorizedConfig
from adapters.factorized.layers import NetworkSpec, sizes
from adapters.factorized.moments import Moments


@dataclass(frozen=True)
class Target:
    """A linear that is to be replaced, or several, whose rows are stacked.

    Args:
        paths: in the model; of the first linear, then of those that share its cores.
        linears: each an ``nn.Linear`` or a ``Conv1D``.
        config: the factorization that names them.
        spec: the network that takes the place of the stacked weight.
    """

    paths: tuple[str, ...]
    linears: tuple[nn.Module, ...]
    config: FactorizedConfig
    spec: NetworkSpec

    @property
    def name(self) -> str:
        """The path; of several, what their paths have in common, and their ends."""
        if len(self.paths) == 1:
            return self.paths[0]
        parts = [path.split(".") for path in self.paths]
        if {len(part) for part in parts} != {len(parts[0])}:
            return " ".join(self.paths)
        columns = [list(dict.fromkeys(column)) for column in zip(*parts, strict=True)]
        return ".".join(names[0] if len(names) == 1 else f"{{{','.join(names)}}}" for names in columns)

    @property
    def size(self) -> tuple[int, int]:
        """(out, in) of the stacked weight."""
        return sum(sizes(linear)[1] for linear in self.linears), sizes(self.linears[0])[0]

    @property
    def like(self) -> nn.Parameter:
        """A weight, for its dtype and device."""
        return self.linears[0].weight

    @property
    def weights(self) -> list[Tensor]:
        """W (out, in) of each linear in float64, detached; a copy at each access, so that few are held at a time."""
        return [as_out_in(linear, linear.weight.detach()).double() for linear in self.linears]

    @property
    def weight(self) -> Tensor:
        """The stacked weight (out, in) in float64, detached."""
        return self.weights[0] if len(self.weights) == 1 else torch.cat(self.weights)

    @property
    def stacked_core(self) -> int:
        """The core whose rows are stacked: the first one that has any."""
        return next((k for k, rows in enumerate(self.spec.raw_shape[0]) if rows > 1), 0)

    def specs(self) -> list[NetworkSpec]:
        """The network of each linear."""
        if len(self.linears) == 1:
            return [self.spec]
        rows, columns = self.spec.raw_shape
        k, whole = self.stacked_core, self.size[0]
        shares = [rows[k] * sizes(linear)[1] // whole for linear in self.linears]
        shapes = [((*rows[:k], share, *rows[k + 1 :]), columns) for share in shares]
        return [replace(self.spec, raw_shape=shape, own_core=k, owner=self.paths[0]) for shape in shapes]

    def split(self, cores: list[Tensor]) -> list[list[Tensor]]:
        """The cores of each linear, given those of the stacked weight."""
        if len(self.linears) == 1:
            return [cores]
        k = self.stacked_core
        own = cores[k].split([spec.raw_shape[0][k] for spec in self.specs()], dim=1)  # (r, m, n, s) by rows
        return [[*cores[:k], core.contiguous(), *cores[k + 1 :]] for core in own]

    def inputs(self, moments: dict[str, Moments]) -> list[Moments]:
        """The moments of the inputs of each weight; none without a calibration."""
        return [moments[path] for path in self.paths] if moments else []
