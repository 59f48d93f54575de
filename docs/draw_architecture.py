"""Draws docs/architecture.png: where the modules sit in a sublayer of T5, and what a TT matrix is.

python docs/draw_architecture.py
"""

import itertools
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch

FROZEN, TRAINED, INK = "#dfe6ee", "#f6b26b", "#22313f"


def box(axes, x, y, text, colour, width=2.15, height=0.62):
    """A box centred at (x, y)."""
    shape = FancyBboxPatch(
        (x - width / 2, y - height / 2),
        width,
        height,
        boxstyle="round,pad=0.02,rounding_size=0.09",
        fc=colour,
        ec=INK,
        lw=1.1,
    )
    axes.add_patch(shape)
    axes.text(x, y, text, ha="center", va="center", fontsize=9.5, color=INK)


def arrow(axes, start, end, bend=0.0):
    """An arrow, optionally bent."""
    style = f"arc3,rad={bend}"
    axes.add_patch(
        FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=11, lw=1.2, color=INK, connectionstyle=style)
    )


def line(axes, xs, ys):
    axes.plot(xs, ys, color=INK, lw=1.2, solid_capstyle="round")


def draw_sublayer(axes):
    """h -> layer norm -> wi -> activation -> wo -> adapter -> + h, from the bottom up."""
    x, side = 3.0, 5.7
    levels = {"h": 0.2, "norm": 1.2, "wi": 2.6, "act": 3.6, "wo": 4.9, "after": 6.15, "sum": 7.25}
    axes.text(
        x,
        levels["h"] - 0.05,
        "hidden states  h  (batch, length, d_model)",
        ha="center",
        va="top",
        fontsize=9,
        color=INK,
    )
    box(axes, x, levels["norm"], "layer norm", FROZEN)
    box(axes, x, levels["wi"], "wi   (or wi_0, wi_1)", FROZEN)
    box(axes, x, levels["act"], "activation", "white", height=0.5)
    box(axes, x, levels["wo"], "wo", FROZEN)
    box(axes, x, levels["after"], "tt_adapter,  bottleneck,  tt_single", TRAINED, width=3.9)
    axes.text(x, levels["sum"], "+", ha="center", va="center", fontsize=15, color=INK)
    axes.add_patch(Circle((x, levels["sum"]), 0.2, fc="none", ec=INK, lw=1.1))

    box(axes, side + 0.5, levels["norm"], "tt_layer_norm,  scale_norm", TRAINED, width=3.1)
    axes.text(
        side + 0.45,
        levels["norm"] - 0.5,
        "in its place",
        ha="center",
        va="center",
        fontsize=8.5,
        style="italic",
        color=INK,
    )
    line(axes, [x + 1.1, side - 1.07], [levels["norm"]] * 2)
    for name in ("wi", "wo"):
        y = levels[name]
        box(axes, side, y, "tt_lora", TRAINED, width=1.4)
        line(axes, [x, side], [y - 0.55, y - 0.55])
        line(axes, [side, side], [y - 0.55, y - 0.33])
        line(axes, [side, side], [y + 0.33, y + 0.5])
        line(axes, [side, x + 0.06], [y + 0.5, y + 0.5])
        axes.text(side + 0.85, y, "beside it", ha="left", va="center", fontsize=8.5, style="italic", color=INK)

    order = ["h", "norm", "wi", "act", "wo", "after", "sum"]
    half = {"h": 0.0, "norm": 0.34, "wi": 0.34, "act": 0.27, "wo": 0.34, "after": 0.34, "sum": 0.2}
    for low, high in itertools.pairwise(order):
        arrow(axes, (x, levels[low] + half[low]), (x, levels[high] - half[high]))
    line(axes, [x, 0.75, 0.75], [0.5, 0.5, levels["sum"]])
    arrow(axes, (0.75, levels["sum"]), (x - 0.2, levels["sum"]))
    arrow(axes, (x, levels["sum"] + 0.2), (x, levels["sum"] + 0.75))
    axes.text(0.6, 3.9, "residual", rotation=90, ha="right", va="center", fontsize=8.5, style="italic", color=INK)
    axes.set_title("A sublayer of T5 (attention likewise: q, k, v, o)", fontsize=11, color=INK, loc="left")
    axes.set(xlim=(0.1, 7.9), ylim=(-0.4, 8.1))


def draw_tt_matrix(axes):
    """Three cores with row and column legs, and the bonds between them."""
    y = 5.6
    for k, x in enumerate((1.2, 3.2, 5.2), start=1):
        line(axes, [x, x], [y + 0.4, y + 1.15])
        line(axes, [x, x], [y - 0.4, y - 1.15])
        axes.text(x, y + 1.35, f"$m_{k}$", ha="center", fontsize=11, color=INK)
        axes.text(x, y - 1.55, f"$n_{k}$", ha="center", fontsize=11, color=INK)
        if k < 3:
            line(axes, [x + 0.4, x + 1.6], [y, y])
            axes.text(x + 1.0, y + 0.14, f"$r_{k}$", ha="center", fontsize=11, color=INK)
        axes.add_patch(Circle((x, y), 0.42, fc=TRAINED, ec=INK, lw=1.1))
        axes.text(x, y, f"$G_{k}$", ha="center", va="center", fontsize=12, color=INK)
    axes.text(6.0, y + 1.35, "rows: out", fontsize=9, color=INK, va="bottom")
    axes.text(6.0, y - 1.55, "columns: in", fontsize=9, color=INK, va="bottom")
    text = (
        "$\\Delta W_{(i_1 i_2 i_3),(j_1 j_2 j_3)} = G_1[i_1,j_1]\\;G_2[i_2,j_2]\\;G_3[i_3,j_3]$\n\n"
        "3072 $\\times$ 768 as (12$\\cdot$16$\\cdot$16) $\\times$ (8$\\cdot$8$\\cdot$12), rank 8:\n"
        "10,496 parameters instead of 2,359,296\n\n"
        "training:     $y = W x + \\Delta W x$,   $W$ frozen\n"
        "evaluation:  $y = (W + \\Delta W)\\, x$,   merged, then restored bit for bit"
    )
    axes.text(0.5, 2.9, text, ha="left", va="top", fontsize=10, color=INK, linespacing=1.45)
    axes.set_title("What is trained: a tensor-train matrix", fontsize=11, color=INK, loc="left")
    axes.set(xlim=(0.1, 7.9), ylim=(-0.4, 8.1))


def main() -> None:
    figure = Figure(figsize=(11.5, 6.1), layout="constrained", facecolor="white")
    left, right = figure.subplots(1, 2)
    draw_sublayer(left)
    draw_tt_matrix(right)
    for axes in (left, right):
        axes.set_aspect("equal")
        axes.axis("off")
    figure.get_layout_engine().set(rect=(0.005, 0.07, 0.99, 0.91))
    for colour, name, x in ((FROZEN, "frozen", 0.36), (TRAINED, "trained", 0.43)):
        figure.text(x, 0.035, f" {name} ", fontsize=9, color=INK, bbox={"fc": colour, "ec": INK, "lw": 0.8, "pad": 2.5})
    figure.savefig(Path(__file__).with_name("architecture.png"), dpi=130)


if __name__ == "__main__":
    main()
