"""Draws docs/kinds.png: one small picture for each kind of adapter, data flowing upwards.

python docs/draw_kinds.py
"""

from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch, Rectangle

FROZEN, TRAINED, PLAIN, INK = "#dfe6ee", "#f6b26b", "white", "#22313f"
MIDDLE = 2.0  # x of the data path in a tile of 4 x 4


def box(axes, x, y, words, colour=FROZEN, width=1.3, height=0.5, size=9.0, **style):
    shape = FancyBboxPatch(
        (x - width / 2, y - height / 2),
        width,
        height,
        boxstyle="round,pad=0.01,rounding_size=0.07",
        **{"fc": colour, "ec": INK, "lw": 1.0, "zorder": 2} | style,
    )
    axes.add_patch(shape)
    text(axes, x, y, words, size)


def text(axes, x, y, words, size=9.0, **style):
    axes.text(x, y, words, **{"ha": "center", "va": "center", "fontsize": size, "color": INK, "zorder": 4} | style)


def line(axes, *points):
    axes.plot(*zip(*points, strict=True), color=INK, lw=1.0, solid_capstyle="round", zorder=1)


def arrow(axes, start, end):
    axes.add_patch(
        FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=8, lw=1.0, color=INK, shrinkA=0, shrinkB=0)
    )


def plus(axes, x, y):
    axes.add_patch(Circle((x, y), 0.14, fc=PLAIN, ec=INK, lw=1.0, zorder=3))
    text(axes, x, y, "+", 9)


def cells(axes, x, y, colours, size=0.22):
    """A vector as a row of squares, centred at (x, y)."""
    left = x - size * len(colours) / 2
    for k, colour in enumerate(colours):
        axes.add_patch(Rectangle((left + size * k, y - size / 2), size, size, fc=colour, ec=INK, lw=0.8, zorder=2))


def block(axes, x, y, width, height, words="", dashed=False):
    style = "--" if dashed else "-"
    axes.add_patch(
        Rectangle((x - width / 2, y - height / 2), width, height, fc=TRAINED, ec=INK, lw=0.9, ls=style, zorder=2)
    )
    text(axes, x, y, words, 8)


# Linear maps, centred at (x, y), about 1.5 wide and 0.5 high


def dense(axes, x, y):
    block(axes, x, y, 1.3, 0.46)


def low_rank(axes, x, y):
    block(axes, x - 0.45, y, 0.14, 0.5)
    block(axes, x + 0.22, y, 0.95, 0.14)


def hypercomplex(axes, x, y):
    text(axes, x - 0.75, y, "$\\Sigma$", 10)
    block(axes, x - 0.42, y, 0.3, 0.3, "$A_i$")
    text(axes, x - 0.1, y, "$\\otimes$", 9)
    block(axes, x + 0.45, y, 0.7, 0.42, "$B_i$")


def compacter(axes, x, y):
    text(axes, x - 0.75, y, "$\\Sigma$", 10)
    block(axes, x - 0.42, y, 0.3, 0.3, "$A_i$", dashed=True)
    text(axes, x - 0.1, y, "$\\otimes$", 9)
    block(axes, x + 0.14, y, 0.12, 0.42)
    block(axes, x + 0.55, y, 0.58, 0.12)


def train(axes, x, y, rows=True, columns=True):
    line(axes, (x - 0.5, y), (x + 0.5, y))
    for offset in (-0.5, 0.0, 0.5):
        if rows:
            line(axes, (x + offset, y + 0.16), (x + offset, y + 0.32))
        if columns:
            line(axes, (x + offset, y - 0.16), (x + offset, y - 0.32))
        axes.add_patch(Circle((x + offset, y), 0.16, fc=TRAINED, ec=INK, lw=0.9, zorder=3))


# Tiles


def beside(axes, draw):
    """A frozen linear with a delta beside it, added to its output."""
    line(axes, (1.0, 0.65), (1.0, 3.1))
    box(axes, 1.0, 1.95, "$W$", width=1.0, height=0.7)
    line(axes, (1.0, 1.0), (2.9, 1.0), (2.9, 1.55))
    draw(axes, 2.9, 1.95)
    line(axes, (2.9, 2.35), (2.9, 2.95), (1.14, 2.95))
    plus(axes, 1.0, 2.95)
    arrow(axes, (1.0, 3.09), (1.0, 3.45))


def after(axes, *steps):
    """A frozen linear, then a residual adapter on its output."""
    box(axes, MIDDLE, 0.7, "$W$", width=1.0, height=0.36)
    line(axes, (MIDDLE, 0.88), (MIDDLE, 3.1))
    ys = (1.5, 2.05, 2.6) if len(steps) == 3 else (2.05,)
    for draw, y in zip(steps, ys, strict=True):
        if draw in (low_rank, hypercomplex, compacter):  # drawn in several parts, with one frame around them
            box(axes, MIDDLE, y, "", PLAIN, width=1.95, height=0.6, ec="#c3ccd5")
        draw(axes, MIDDLE, y)
    line(axes, (MIDDLE, 1.05), (0.7, 1.05), (0.7, 3.1), (MIDDLE - 0.14, 3.1))
    plus(axes, MIDDLE, 3.1)
    arrow(axes, (MIDDLE, 3.24), (MIDDLE, 3.55))


def activation(axes, x, y):
    axes.add_patch(Rectangle((x - 0.2, y - 0.14), 0.4, 0.28, fc=PLAIN, ec="none", zorder=2))
    text(axes, x, y, "$f$", 10)


def norm(axes, draw):
    """x over its root mean square, times a weight drawn on the right."""
    line(axes, (1.2, 0.65), (1.2, 3.1))
    box(axes, 1.2, 1.45, "$x\\,/\\,\\mathrm{rms}(x)$", PLAIN, width=1.6)
    axes.add_patch(Circle((1.2, 2.55), 0.14, fc=PLAIN, ec=INK, lw=1.0, zorder=3))
    axes.add_patch(Circle((1.2, 2.55), 0.035, fc=INK, zorder=4))
    line(axes, (1.34, 2.55), (2.6, 2.55))
    draw(axes, 2.85, 2.55)
    arrow(axes, (1.2, 2.69), (1.2, 3.45))


def draw_vector(axes, x, y):
    cells(axes, x, y, [TRAINED] * 7)


def draw_number(axes, x, y):
    cells(axes, x - 0.2, y, [TRAINED], 0.3)
    text(axes, x + 0.55, y, "for every\nfeature", 8)


def draw_peft(axes, x, y):
    box(axes, x, y, "a layer\nof PEFT", TRAINED, width=1.4, height=0.8)


def tt_lora(axes):
    beside(axes, train)


def bitfit(axes):
    line(axes, (1.0, 0.65), (1.0, 3.1))
    box(axes, 1.0, 1.95, "$W$,  norm", width=1.4, height=0.7)
    cells(axes, 2.95, 2.95, [TRAINED] * 7)
    line(axes, (2.18, 2.95), (1.14, 2.95))
    plus(axes, 1.0, 2.95)
    arrow(axes, (1.0, 3.09), (1.0, 3.45))


def intrinsic_said(axes):
    line(axes, (1.0, 0.65), (1.0, 3.1))
    box(axes, 1.0, 2.2, "$W_i + \\lambda_i P_i(\\theta)$", width=1.75, height=0.6, size=8.5)
    cells(axes, 3.05, 1.2, [TRAINED] * 5)
    text(axes, 3.05, 0.85, "$\\theta$, one for all", 8)
    box(axes, 3.05, 2.2, "$P_i$ random", width=1.2, height=0.42, size=8)
    arrow(axes, (3.05, 1.32), (3.05, 1.98))
    arrow(axes, (2.44, 2.2), (1.89, 2.2))
    cells(axes, 2.16, 2.62, [TRAINED], 0.2)
    text(axes, 2.45, 2.62, "$\\lambda_i$", 8.5)
    arrow(axes, (1.0, 2.51), (1.0, 3.45))


def prompt(axes):
    cells(axes, MIDDLE, 1.1, [TRAINED] * 4 + [FROZEN] * 6, 0.3)
    text(axes, 1.1, 0.72, "prompt", 8.5)
    text(axes, 2.6, 0.72, "embedded tokens", 8.5)
    arrow(axes, (MIDDLE, 1.27), (MIDDLE, 1.92))
    box(axes, MIDDLE, 2.2, "encoder", width=3.0)
    arrow(axes, (MIDDLE, 2.46), (MIDDLE, 3.45))


def lm_head(axes):
    box(axes, MIDDLE, 1.2, "encoder, decoder", width=2.6)
    arrow(axes, (MIDDLE, 1.46), (MIDDLE, 2.02))
    box(axes, MIDDLE, 2.3, "lm_head", TRAINED, width=2.6)
    arrow(axes, (MIDDLE, 2.56), (MIDDLE, 3.45))


def everything(axes):
    box(axes, MIDDLE, 1.2, "encoder, decoder", TRAINED, width=2.6)
    arrow(axes, (MIDDLE, 1.46), (MIDDLE, 2.02))
    box(axes, MIDDLE, 2.3, "lm_head", TRAINED, width=2.6)
    arrow(axes, (MIDDLE, 2.56), (MIDDLE, 3.45))


TILES = {
    "tt_lora": (tt_lora, "$Wx + s\\,Tx$"),
    "tt_single": (lambda axes: after(axes, train), "$y + s\\,Ty$"),
    "tt_adapter": (lambda axes: after(axes, train, activation, train), "$y + U f(V y)$,  TT"),
    "peft:TYPE": (lambda axes: beside(axes, draw_peft), "LoRA, LoKr, IA3, ..."),
    "bottleneck": (lambda axes: after(axes, dense, activation, dense), "$y + U f(V y)$,  dense"),
    "low_rank": (lambda axes: after(axes, low_rank, activation, low_rank), "$V = u v$"),
    "phm": (lambda axes: after(axes, hypercomplex, activation, hypercomplex), "$V = \\sum A_i \\otimes B_i$"),
    "compacter": (lambda axes: after(axes, compacter, activation, compacter), "$A_i$ shared,  $B_i = s_i t_i$"),
    "layer_norm": (lambda axes: norm(axes, draw_vector), "$w \\odot x/\\mathrm{rms}(x)$"),
    "tt_layer_norm": (lambda axes: norm(axes, lambda a, x, y: train(a, x, y, columns=False)), "$w$ a TT vector"),
    "scale_norm": (lambda axes: norm(axes, draw_number), "$g\\, x/\\|x\\|$"),
    "bitfit": (bitfit, "$Wx + c$"),
    "intrinsic_said": (intrinsic_said, "one subspace of all weights"),
    "prompt": (prompt, "$[P; X]$"),
    "lm_head": (lm_head, "the output projection"),
    "none": (everything, "full fine-tuning"),
}
"""Drawing and formula of each kind."""


def main() -> None:
    figure = Figure(figsize=(11.5, 11.2), layout="constrained", facecolor="white")
    for axes, (kind, (draw, formula)) in zip(figure.subplots(4, 4).flat, TILES.items(), strict=True):
        draw(axes)
        axes.set_title(kind, fontsize=10.5, color=INK, family="monospace")
        text(axes, MIDDLE, 0.12, formula, 9.5)
        axes.set(xlim=(0, 4), ylim=(-0.15, 3.7), aspect="equal", xticks=[], yticks=[])
        for spine in axes.spines.values():
            spine.set_color("#c3ccd5")
    for colour, name, x in ((FROZEN, "frozen", 0.40), (TRAINED, "trained", 0.47), (TRAINED, "trained, shared", 0.545)):
        style = {"fc": colour, "ec": INK, "lw": 0.8, "pad": 2.5, "ls": "--" if "shared" in name else "-"}
        figure.text(x, 0.014, f" {name} ", fontsize=9, color=INK, bbox=style)
    figure.get_layout_engine().set(rect=(0.005, 0.035, 0.99, 0.955))
    figure.savefig(Path(__file__).with_name("kinds.png"), dpi=120)


if __name__ == "__main__":
    main()
