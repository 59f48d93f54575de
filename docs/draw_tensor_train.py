"""Draws docs/tensor_train.png: a matrix, its reshaping, its cores, the rank of a bond, and related formats.

python docs/draw_tensor_train.py
"""

from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.patches import Circle, Rectangle

CORE, PLAIN, INK = "#f6b26b", "#dfe6ee", "#22313f"
SHADES = ("#c9d7e6", "#f9d9b5", "#d5e8d4", "#e1d5e7")


def line(axes, xs, ys, **style):
    axes.plot(xs, ys, color=INK, lw=1.2, solid_capstyle="round", **style)


def text(axes, x, y, words, size=9.5, **style):
    axes.text(x, y, words, ha=style.pop("ha", "center"), va="center", fontsize=size, color=INK, **style)


def core(axes, x, y, name, legs=True, radius=0.36):
    """A core as a disc with its row leg up and its column leg down."""
    if legs:
        line(axes, [x, x], [y + radius, y + radius + 0.5])
        line(axes, [x, x], [y - radius, y - radius - 0.5])
    axes.add_patch(Circle((x, y), radius, fc=CORE, ec=INK, lw=1.1, zorder=3))
    text(axes, x, y, name, 10.5, zorder=4)


def draw_matrix(axes):
    """An 8 x 8 matrix with row and column indices written as three binary digits; one entry is marked."""
    axes.set_title("1  a matrix $W$, indices of rows\n    and columns in binary", fontsize=10, color=INK, loc="left")
    left, bottom, cell = 0.9, 0.45, 0.4
    for i in range(8):
        for j in range(8):
            shade = SHADES[2 * (i // 4) + j // 4]
            place = (left + cell * j, bottom + cell * (7 - i))
            axes.add_patch(Rectangle(place, cell, cell, fc=shade, ec="white", lw=0.8))
    row, column = 3, 5
    place = (left + cell * column, bottom + cell * (7 - row))
    axes.add_patch(Rectangle(place, cell, cell, fc=CORE, ec=INK, lw=1.3))
    for k in range(8):
        text(axes, left - 0.35, bottom + cell * (7.5 - k), f"{k:03b}", 7.5)
        text(axes, left + cell * (k + 0.5), bottom + 8 * cell + 0.32, f"{k:03b}", 7.5, rotation=90)
    text(axes, left + 4 * cell, 0.1, "$W_{011,\\,101}$;   one colour for each $(i_1, j_1)$", 9.5)


def draw_tensor(axes):
    """The same entries with the digits as indices, in pairs."""
    axes.set_title(
        "2  the same entries as a tensor,\n    indexed by pairs $(i_k, j_k)$", fontsize=10, color=INK, loc="left"
    )
    y = 2.2
    axes.add_patch(Rectangle((0.5, y - 0.4), 3.2, 0.8, fc=PLAIN, ec=INK, lw=1.1))
    text(axes, 2.1, y, "$T$", 12)
    for k, x in enumerate((0.95, 2.1, 3.25), start=1):
        line(axes, [x, x], [y + 0.4, y + 0.9])
        line(axes, [x, x], [y - 0.4, y - 0.9])
        text(axes, x, y + 1.1, f"$i_{k}$", 10.5)
        text(axes, x, y - 1.1, f"$j_{k}$", 10.5)
    text(axes, 2.1, 0.1, "$T_{(i_1j_1)(i_2j_2)(i_3j_3)} = W_{i_1i_2i_3,\\,j_1j_2j_3}$", 9.5)


def draw_train(axes):
    """The tensor train: one core per pair, a bond between neighbours."""
    axes.set_title("3  a train of cores, each with\n    one pair and two bonds", fontsize=10, color=INK, loc="left")
    y, xs = 2.2, (0.7, 2.1, 3.5)
    for k, x in enumerate(xs, start=1):
        if k < 3:
            line(axes, [x, x + 1.4], [y, y])
            text(axes, x + 0.7, y + 0.2, f"$r_{k}$", 10.5)
        core(axes, x, y, f"$G_{k}$")
        text(axes, x, y + 1.1, f"$i_{k}$", 10.5)
        text(axes, x, y - 1.1, f"$j_{k}$", 10.5)
    text(axes, 2.1, 0.1, "$G_1[i_1,j_1]\\; G_2[i_2,j_2]\\; G_3[i_3,j_3]$", 9.5)


def draw_unfolding(axes):
    """A cut through a bond: the tensor as a matrix with left pairs as rows and right pairs as columns."""
    axes.set_title("The rank of a bond is the rank of an unfolding", fontsize=10, color=INK, loc="left")
    axes.add_patch(Rectangle((0.95, 0.9), 2.9, 1.5, fc=PLAIN, ec=INK, lw=1.1))
    text(axes, 2.4, 1.65, "$T_{\\langle 1\\rangle}$", 12)
    text(axes, 0.72, 1.65, "$i_1 j_1$", 9.5, rotation=90)
    text(axes, 2.4, 2.62, "$i_2 j_2\\, i_3 j_3$", 9.5)
    text(axes, 4.25, 1.65, "=", 13)
    axes.add_patch(Rectangle((4.95, 0.9), 0.45, 1.5, fc=CORE, ec=INK, lw=1.1))
    text(axes, 4.72, 1.65, "$i_1 j_1$", 9.5, rotation=90)
    text(axes, 5.18, 2.62, "$r_1$", 10.5)
    axes.add_patch(Rectangle((5.85, 1.95), 2.9, 0.45, fc=CORE, ec=INK, lw=1.1))
    text(axes, 5.64, 2.18, "$r_1$", 10.5)
    text(axes, 7.3, 2.62, "$i_2 j_2\\, i_3 j_3$", 9.5)
    text(axes, 7.3, 1.35, "the rest of the train,\ncut next", 9, style="italic")


def draw_relatives(axes):
    """Two cores, a ring, cores mixed from a basis."""
    axes.set_title("Related formats", fontsize=10, color=INK, loc="left")
    y = 1.9
    line(axes, [0.6, 1.7], [y, y])
    core(axes, 0.6, y, "$A$")
    core(axes, 1.7, y, "$B$")
    text(axes, 1.15, 0.45, "two cores:\n$\\sum_a A_a \\otimes B_a$")

    xs = (3.0, 4.0, 5.0)
    line(axes, [xs[0], xs[-1]], [y, y])
    line(axes, [xs[0] - 0.34, xs[0] - 0.6, xs[0] - 0.6], [y, y, y + 1.15])
    line(axes, [xs[-1] + 0.34, xs[-1] + 0.6, xs[-1] + 0.6], [y, y, y + 1.15])
    line(axes, [xs[0] - 0.6, xs[-1] + 0.6], [y + 1.15, y + 1.15])
    for k, x in enumerate(xs, start=1):
        core(axes, x, y, f"$G_{k}$", radius=0.32)
    text(axes, 4.0, 0.45, "ring: one more bond joins the ends\n$\\mathrm{trace}(G_1 G_2 G_3)$")
    text(axes, xs[-1] + 0.8, y + 0.95, "$r_0$", 10.5)

    core(axes, 6.75, y, "$G_k$", radius=0.32)
    text(axes, 7.32, y, "=", 12)
    text(axes, 7.78, y, "$\\sum_b\\, c_b$", 10.5)
    core(axes, 8.6, y, "$B_{kb}$", radius=0.36)
    text(axes, 7.75, 0.45, "basis: cores are mixtures of\ncores shared by all layers")


def main() -> None:
    figure = Figure(figsize=(11.5, 6.6), layout="constrained", facecolor="white")
    figure.get_layout_engine().set(w_pad=0.08, h_pad=0.08, hspace=0.06)
    top, bottom = figure.subfigures(2, 1, height_ratios=[1.15, 1])
    for axes, draw in zip(top.subplots(1, 3), (draw_matrix, draw_tensor, draw_train), strict=True):
        draw(axes)
        axes.set(xlim=(-0.1, 4.7), ylim=(-0.25, 4.4))
    for axes, draw in zip(bottom.subplots(1, 2), (draw_unfolding, draw_relatives), strict=True):
        draw(axes)
        axes.set(xlim=(0, 9.2), ylim=(0, 3.6))
    for axes in figure.axes:
        axes.set_aspect("equal")
        axes.axis("off")
    figure.savefig(Path(__file__).with_name("tensor_train.png"), dpi=130)


if __name__ == "__main__":
    main()
