"""A small keyboard, traces of several lengths on it, and tiny models."""

import numpy as np
import torch

from third_party.models.swipe import SwipeConfig, SwipeForConditionalGeneration, SwipeForCTC

ALPHABET = "abcdefg"
LENGTHS = (9, 5, 1)
SIZES = {"alphabet": ALPHABET, "d_model": 16, "num_layers": 2, "num_heads": 2, "d_ff": 24, "num_decoder_layers": 1}
KEYS = [(0.5, 0.5), (1.5, 0.5), (2.5, 0.5), (3.5, 0.5), (1.0, 2.0), (2.0, 2.0), (3.25, 2.0)]
CLOSE = {"atol": 1e-5, "rtol": 1e-5}
"""T5's norms compute in float32 in every model."""


def boxes(dtype=torch.float32):
    """(3, 7, 4): two rows, in which the last key is wide and the second row is higher."""
    sizes = [(1.0, 1.0)] * 4 + [(1.0, 2.0), (1.0, 2.0), (1.5, 2.0)]
    rows = [(*centre, *size) for centre, size in zip(KEYS, sizes, strict=True)]
    return torch.tensor(rows, dtype=dtype).expand(len(LENGTHS), -1, -1).contiguous()


def batch(dtype=torch.float32, seed=0):
    """Random walks over the keyboard, padded with values that must not matter, and their mask."""
    generator = np.random.default_rng(seed)
    longest = max(LENGTHS)
    steps = generator.normal(0, 0.6, (len(LENGTHS), longest, 2))
    points = torch.tensor(np.cumsum(steps, 1) + np.array([2.0, 1.2]), dtype=dtype)
    mask = (torch.arange(longest) < torch.tensor(LENGTHS)[:, None]).long()
    return {"points": points, "attention_mask": mask, "boxes": boxes(dtype)}


def row(inputs, index):
    """One trace of a batch without padding."""
    length = LENGTHS[index]
    return {
        "points": inputs["points"][index : index + 1, :length],
        "attention_mask": inputs["attention_mask"][index : index + 1, :length],
        "boxes": inputs["boxes"][index : index + 1],
    }


def ctc(dtype=torch.float32, seed=0, **options):
    torch.manual_seed(seed)
    return SwipeForCTC(SwipeConfig(**{**SIZES, **options})).to(dtype).eval()


def generator(dtype=torch.float32, seed=0, **options):
    torch.manual_seed(seed)
    return SwipeForConditionalGeneration(SwipeConfig(**{**SIZES, **options})).to(dtype).eval()
