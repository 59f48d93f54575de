"""An adapter with site modes as what it is: one tensor train for the whole model, and the deltas of linears in it.

    core of a site mode    slices G_k[s] (r, 1, 1, r'), s = 1..S_k, one for each layer, kind of matrix, linear or task
    stacked                (r, S_k, 1, r'): the site is a row index like the out factors
    the train              rows: sites and out features, in the order of the cores;  columns: in features

The delta of a linear is the train at the sites of that linear. The train has an entry for every combination of sites,
also for one at which the model has no linear: such an entry is what its slices give, and counts in norms, products and
errors of rounding as any other does.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch

import t3nsor as t3
from adapters.kinds.tensor_train import TensorTrainDelta
from adapters.tensor_train.modes import Mode


@dataclass(frozen=True)
class Sites:
    """Where the deltas of linears are in the train.

    Args:
        modes: what each core carries.
        counts: S_k, 1 for a core without sites.
        indices: by path of a linear, its slice in each core, 0 where there is one.
    """

    modes: tuple[Mode, ...]
    counts: tuple[int, ...]
    indices: Mapping[str, tuple[int, ...]]

    def train_at(self, train: t3.TensorTrain, path: str) -> t3.TensorTrain:
        """The delta (out, in) of one linear."""
        chosen = zip(train.cores, self.counts, self.indices[path], strict=True)
        return t3.TensorTrain(core.chunk(count, dim=1)[index] for core, count, index in chosen)


def sites_of(modes: tuple[Mode, ...], adapters: Mapping[str, TensorTrainDelta]) -> Sites:
    """The sites of the modules of one adapter with site modes, by path.

    Slices are told apart as Parameters; a disabled core, which all modules have alike, is one slice.
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
    """The cores (r, S_k m, n, r') of all sites, float64."""
    slices: list[dict[int, torch.Tensor]] = [{} for _ in sites.modes]
    for path, adapter in adapters.items():
        for found, index, core in zip(slices, sites.indices[path], adapter.linear.live_cores(), strict=True):
            found.setdefault(index, core.detach().double())
    return [torch.cat([found[index] for index in sorted(found)], dim=1) for found in slices]
