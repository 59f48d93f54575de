"""The feature sets: what a model computes from the points of a trace and the keys of its layout.

    points  (batch, time, 2)       x, y, in key widths
    mask    (batch, time)          1 up to the end of a trace, 0 behind it
    boxes   (batch, letters, 4)    x, y of a key's centre, its width and height, in key widths
    result  (batch, time, size)    0 behind the end

    name          of the letters     of the path                 source
    nearest       nearest key        x, y, x', y', x'', y''      neuroswipe ("my nearest"), an embedding there
    trajectory    -                  x, y, x', y', x'', y''
    key_weights   sigmoid weights    x, y, x', y', x'', y''      neuroswipe ("my weighted")
    gaussians     trainable widths   x, y, x', y', x'', y''
    distances     distances          x, y, x', y', x'', y''
    phraseswipe   nearest key        -                           Xu et al. 2022, doi:10.1145/3526113.3545683
    indicswipe    nearest key        x, y, x', y'                Biju et al. 2020, arXiv:2203.14049
    google2015    key that holds it  x, y, time, event           Alsharif et al. 2015, doi:10.1109/ICASSP.2015.7178336

All are adapted to keys of any layout: x and y are relative to the letters' keys, letters are those of the alphabet
(Alsharif et al. have keys of punctuation and the space too), and a linear read-in takes the place of an embedding of
the nearest key, which is the same map. PhraseSwipe gives its keys to BERT as a text. As all traces here have one rate,
the time since the previous point of Alsharif et al. is the time since the start; their frame-wise normalisation is
``ContrastNormalized``. neuroswipe: github.com/proshian/neuroswipe. The sets of the three papers follow descriptions by
others, such as neuroswipe's README, not the papers themselves.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from third_party.models.swipe.keys import InsideKey, KeyDistances, KeyGaussians, KeyWeights, NearestKey
from third_party.models.swipe.path import Events, Motion, Position, Time


class FeatureSet(nn.Module):
    """Several features side by side; 0 behind the end of a trace.

    Args:
        parts: modules with a ``size`` and the same arguments.
    """

    def __init__(self, *parts: nn.Module) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)
        self.size = sum(part.size for part in parts)

    def forward(self, points: Tensor, mask: Tensor, boxes: Tensor) -> Tensor:
        """The features (batch, time, size)."""
        found = torch.cat([part(points, mask, boxes) for part in self.parts], -1)
        return found.masked_fill(mask[..., None] == 0, 0)


class ContrastNormalized(FeatureSet):
    """Each frame's features, less their mean and divided by their standard deviation (at least ``EPSILON``)."""

    EPSILON = 1e-4

    def forward(self, points: Tensor, mask: Tensor, boxes: Tensor) -> Tensor:
        """The features (batch, time, size)."""
        found = super().forward(points, mask, boxes)
        centred = found - found.mean(-1, keepdim=True)
        return centred / centred.square().mean(-1, keepdim=True).sqrt().clamp(min=self.EPSILON)


def with_path(rate: float, *letters: nn.Module) -> FeatureSet:
    """Features of letters, if any, beside x, y, x', y', x'', y''."""
    return FeatureSet(*letters, Position(), Motion(rate, order=2))


FEATURES: dict[str, Callable[[int, float], FeatureSet]] = {
    "nearest": lambda letters, rate: with_path(rate, NearestKey(letters)),
    "trajectory": lambda letters, rate: with_path(rate),
    "key_weights": lambda letters, rate: with_path(rate, KeyWeights(letters)),
    "gaussians": lambda letters, rate: with_path(rate, KeyGaussians(letters)),
    "distances": lambda letters, rate: with_path(rate, KeyDistances(letters)),
    "phraseswipe": lambda letters, rate: FeatureSet(NearestKey(letters)),
    "indicswipe": lambda letters, rate: FeatureSet(NearestKey(letters), Position(), Motion(rate, order=1)),
    "google2015": lambda letters, rate: ContrastNormalized(InsideKey(letters), Position(), Time(rate), Events()),
}
"""The feature sets by name; each makes a module for an alphabet of so many letters and a rate in points per second."""
