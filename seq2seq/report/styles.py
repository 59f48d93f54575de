"""A colour and a marker for each method, which depend on its settings alone: the same in every plot and report.

The marker is that of the family. The colour is one of the family's, by the kind and what changes it (the format, shared
cores), lighter for a low rank and darker for a high one. Several kinds at once have an open marker. Only the line style
depends on the plot: methods of one kind have different ones.
"""

import itertools
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any
from zlib import crc32

from seq2seq.report.names import rank_of

FAMILIES: dict[str, tuple[str, dict[str, str]]] = {
    "tensor trains": (
        "o",
        {
            "tt_lora": "#1f5fd0",
            "tt_lora shared": "#00a1c9",
            "tt_lora tensor_ring": "#6a3fd1",
            "tt_lora tensor_basis": "#0b7d8f",
            "tt_lora cp": "#8aa4ff",
            "tt_lora tucker": "#23307a",
            "tt_single": "#2ca6a4",
            "tt_adapter": "#4c7fae",
        },
    ),
    "bottlenecks": ("s", {"bottleneck": "#2e8b3d", "low_rank": "#8cb81f", "phm": "#1b5e3a", "compacter": "#6fbf73"}),
    "norms and biases": (
        "^",
        {"layer_norm": "#e07b00", "tt_layer_norm": "#b8860b", "scale_norm": "#e9b44c", "bitfit": "#a0522d"},
    ),
    "subspaces, prompts, heads": (
        "D",
        {"intrinsic_said": "#aa3377", "prompt": "#d77fb4", "lm_head": "#6b2457", "head": "#c2185b"},
    ),
    "the model's own weights": (
        "v",
        {"factors": "#8c6d31", "weights": "#bd9e39"},
    ),
    "PEFT": (
        "X",
        {
            "peft:LORA": "#d1322d",
            "peft:IA3": "#f08a7a",
            "peft:VERA": "#8b1a1a",
            "peft:LOKR": "#ff5a36",
            "peft:LOHA": "#c75b5b",
            "peft:BOFT": "#7a3b2e",
            "peft:OFT": "#e0a090",
        },
    ),
    "full fine-tuning": ("*", {"none": "#111111"}),
    "others": ("P", {"": "#777777"}),
}
"""Families of kinds: the marker, and a colour for each kind or variant of a kind."""

LINES = ("-", "--", ":", "-.", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 3)), (0, (8, 3)))
MIDDLE_RANK = 6.0
"""The rank whose colour is neither lightened nor darkened."""


def method_styles(methods: Sequence[tuple[str, Mapping[str, Any]]]) -> dict[str, dict[str, Any]]:
    """matplotlib's keywords for a line with markers, for each method by label.

    Args:
        methods: labels and settings, in the order in which line styles are given to methods of one colour.
    """
    used = defaultdict(itertools.count)
    styles = {}
    for label, settings in methods:
        colour, _, _ = base_style(settings)
        styles[label] = {**method_style(settings), "linestyle": LINES[next(used[colour]) % len(LINES)]}
    return styles


def method_style(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Colour and marker of a method."""
    colour, marker, prefixes = base_style(settings)
    colour = shade(colour, rank_of(settings, prefixes[0]))
    face = "white" if len(prefixes) > 1 else colour
    return {"color": colour, "marker": marker, "markerfacecolor": face, "markersize": 8 if marker == "*" else 5}


def base_style(settings: Mapping[str, Any]) -> tuple[str, str, list[str]]:
    """The colour before it is shaded, the marker, and the prefixes of the keys of each adapter of a method."""
    prefixes = [key.removesuffix("kind") for key in settings if key.startswith("adapter") and key.endswith(".kind")]
    prefixes = prefixes or ["adapter."]
    kind = str(settings.get(f"{prefixes[0]}kind", ""))
    marker, colours = next(
        (family for family in FAMILIES.values() if kind in family[1]),
        FAMILIES["PEFT" if kind.startswith("peft:") else "others"],
    )
    variant = "shared" if settings.get(f"{prefixes[0]}shared_cores") else settings.get(f"{prefixes[0]}format")
    names = list(colours)
    chosen = next((name for name in (f"{kind} {variant}", kind) if name in colours), None)
    return colours[chosen if chosen is not None else names[crc32(kind.encode()) % len(names)]], marker, prefixes


def shade(colour: str, rank: int | Sequence[int] | None) -> str:
    """Mix a colour with white for a rank below the middle one, with black above it: a fifth for a factor of 2."""
    from matplotlib.colors import to_hex, to_rgb

    if rank is None:
        return colour
    ranks = [rank] if isinstance(rank, int) else list(rank) or [1]
    octaves = math.log2(sum(ranks) / len(ranks) / MIDDLE_RANK)
    target, share = (1.0 if octaves < 0 else 0.0), min(0.2 * abs(octaves), 0.65)
    return to_hex([(1 - share) * part + share * target for part in to_rgb(colour)])
