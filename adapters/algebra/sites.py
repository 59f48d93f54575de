"""An adapter with site modes as one tensor train for the whole model, and the deltas of linears in it.

    core of a site mode    slices G_k[s] (r, 1, 1, r'), s = 1..S_k, one for each layer, kind of matrix, linear or task
    stacked                (r, S_k, 1, r'): the site is a row index like the out factors
    train                  rows: sites and out features, in the order of the cores;  columns: in features

The delta of a linear is the train at the sites of that linear. The train has an entry for every combination of sites,
also for those at which the model has no linear; these count in norms, products and errors of rounding too.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch

import t3nsor as t3
from adapters.kinds.tensor_train import TensorTrainDelta
from adapters.tensor_train.modes import Mode


@dataclass(frozen=True)
class Sites:
    """The positions of the deltas of linears in the train.

    Args:
        modes: the mode of each core.
        counts: S_k, 1 for a core without sites.
        indices: by path of a linear, its slice in each core; 0 for a core without sites.
    """

    modes: tuple[Mode, ...]
    counts: tuple[int, ...]
    indices: Mapping[str, tuple[int, ...]]

    def train_at(self, train: t3.TensorTrain, path: str) -> t3.TensorTrain:
        """Return the delta (out, in) of one linear."""
        chosen = zip(train.cores, self.counts, self.indices[path], strict=True)
        return t3.TensorTrain(core.chunk(count, dim=1)[index] for core, count, index in chosen)


def sites_of(modes: tuple[Mode, ...], adapters: Mapping[str, TensorTrainDelta]) -> Sites:
    """Return the sites of the modules of one adapter with site modes, by path.

    Slices are distinguished as Parameters; a disabled core is the same for all modules, and so is one slice.
    """
    slices: list[dict[int | None, int]] = [{} for _ in modes]
    indices = {}
    for path, adapter in adapters.items():
        layer = adapter.linear
        keys = [None if k in layer.disabled_cores else id(layer.cores.parameters_of(k)[0]) for k in range(len(modes))]
        indices[path] = tuple(found.setdefault(key, len(found)) for found, key in zip(slices, keys, strict=True))
    return Sites(modes, tuple(map(len, slices)), indices)


@torch.no_grad()
def stacked(sites: Sites, adapters: Mapping[str, TensorTrainDelta]) -> list[torch.Tensor]:
    """Return the cores (r, S_k m, n, r') of all sites, in float64."""
    slices: list[dict[int, torch.Tensor]] = [{} for _ in sites.modes]
    for path, adapter in adapters.items():
        for found, index, core in zip(slices, sites.indices[path], adapter.linear.live_cores(), strict=True):
            found.setdefault(index, core.detach().double())
    return [torch.cat([found[index] for index in sorted(found)], dim=1) for found in slices]
