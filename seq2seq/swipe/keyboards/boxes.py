"""The keys of a model's letters, which may be more than those of a layout."""

import numpy as np

from seq2seq.swipe.keyboards.layout import Layout
from third_party.models.swipe.path import ABSENT


def boxes_of(layout: Layout, alphabet: str) -> np.ndarray:
    """The keys of an alphabet's letters, (letters, 4) float32, as ``Layout.boxes``; absent ones are far away."""
    found = dict(zip(layout.alphabet, layout.boxes, strict=True))
    absent = np.array([ABSENT, ABSENT, 1, 1], np.float32)
    return np.stack([found.get(letter, absent) for letter in alphabet])
