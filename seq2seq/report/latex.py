"""A table of the report as LaTeX, for a paper that uses booktabs: \\input{results.tex} has all of them."""

import re
from collections.abc import Sequence

import pandas as pd

from seq2seq.report.tables import Table

SPECIAL = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "×": r"$\times$",
    "–": "--",
    "†": r"$^\dagger$",
    "‡": r"$^\ddagger$",
    "§": r"$^\S$",
    "¶": r"$^\P$",
    "<": r"$<$",
    ">": r"$>$",
    "|": r"$|$",
}
"""Characters that LaTeX reads as something else, and those that a plain font lacks."""

SIGN = r"(?<![\w}])([+-])(?=\d)"
"""A sign before a number."""

LEFT_OUT = (
    *("", "adapter bytes", "ms per step", "training tensors MiB", "peak MiB"),
    *("parameters ×", "bytes ×", "time ×", "memory ×"),
)
"""Columns that the page has and a paper's table does not."""

NEW_LINE = r" \\"

SIZES = {"small": 0.925, "footnotesize": 0.85, "scriptsize": 0.8}
"""Font sizes, with the width of Computer Modern relative to that at 10 points."""

CHARACTERS = {
    **dict.fromkeys("ijl.,:;'|_ ", 3.4),
    **dict.fromkeys("trfsI()[]-/", 4.0),
    **dict.fromkeys("ecz†‡§¶", 4.5),
    **dict.fromkeys("0123456789", 5.0),
    **dict.fromkeys("±×–", 7.8),
    **dict.fromkeys("mwMW%", 8.4),
    **dict.fromkeys("ABCDEFGHKLNOPQRSTUVXYZ&", 7.7),
}
"""Widths of characters at 10 points, rounded up; others have 5.6, a minus sign of a number 7.8."""

LINE_WIDTH = 345.0
"""Points: the text of the class article."""

COLUMN_SEP = 3.0
"""Points on either side of a column."""

MAX_NAME = 105.0
"""Points that the first column has at most, at 10 points; longer names have several lines."""


def latex_text(text: str) -> str:
    """Escape a text; a sign before a number becomes that of a formula."""
    return re.sub(SIGN, r"$\1$", "".join(SPECIAL.get(character, character) for character in text))


def latex_table(where: str, table: Table) -> str:
    """A table environment with a tabular of booktabs, or several of them if one would be wider than a line.

    Args:
        where: the backbone and the training rows, for the caption.
        table: its first named column is that of methods.
    """
    kept = [index for index, head in enumerate(table.header) if head not in LEFT_OUT]
    seeds = {row[index] for index in kept for row in table.rows if table.header[index] == "seeds"}
    kept = [index for index in kept if table.header[index] != "seeds" or len(seeds) > 1]
    size, parts = layout([column_width(table, index) for index in kept])
    notes = [rf"\par\smallskip\footnotesize {latex_text(f'{mark} {note}')}." for mark, note in table.notes.items()]
    lines = []
    for number, part in enumerate(parts):
        caption = f"{table.caption}; {where}{' (continued)' if number else ''}."
        lines += [r"\begin{table}", r"\centering", rf"\{size}", rf"\setlength{{\tabcolsep}}{{{COLUMN_SEP:g}pt}}"]
        lines += [rf"\caption{{{latex_text(caption)}}}", tabular(table, [kept[0], *(kept[i] for i in part)], size)]
        lines += [*notes, r"\end{table}", ""]
    return "\n".join(lines)


def width_of(text: str) -> float:
    """The width of a text in points at 10 points."""
    signs = len(re.findall(SIGN, text))
    return sum(CHARACTERS.get(one, 5.6) for one in text) + signs * (7.8 - CHARACTERS["-"])


def column_width(table: Table, index: int) -> float:
    """The width of a column's widest line at 10 points."""
    return max(map(width_of, [*head_lines(table.header[index]), *(row[index] for row in table.rows)]))


def layout(widths: Sequence[float]) -> tuple[str, list[list[int]]]:
    """The largest font size in which columns fit side by side, else few groups of columns that do.

    Args:
        widths: those of the columns at 10 points; the first one is part of each group, but not listed in it.
    """
    for size in SIZES:
        groups = [[]]
        for column in range(1, len(widths)):
            if groups[-1] and line_width(widths, [*groups[-1], column], size) > LINE_WIDTH:
                groups.append([])
            groups[-1].append(column)
        if len(groups) == 1:
            break
    return size, groups


def line_width(widths: Sequence[float], columns: Sequence[int], size: str) -> float:
    """The width in points of the first column and some others."""
    texts = min(widths[0], MAX_NAME) + sum(widths[column] for column in columns)
    return texts * SIZES[size] + 2 * COLUMN_SEP * len(columns)


def tabular(table: Table, columns: Sequence[int], size: str) -> str:
    """Some columns of a table, the first one of texts that may have several lines."""
    frame = pd.DataFrame(
        [[latex_text(row[index]) for index in columns] for row in table.rows],
        columns=[latex_head(table.header[index]) for index in columns],
    )
    wraps = column_width(table, columns[0]) > MAX_NAME
    first = f"p{{{MAX_NAME * SIZES[size]:.0f}pt}}" if wraps else "l"
    return frame.to_latex(
        index=False, escape=False, column_format=f"@{{}}{first}{'r' * (len(columns) - 1)}@{{}}"
    ).rstrip()


def head_lines(head: str) -> list[str]:
    """The lines of a column's header: the task and its metric, or the two words of "trainable parameters"."""
    task, bracket, metric = head.partition(" (")
    return [task, f"({metric}"] if bracket else head.split(" ", 1)


def latex_head(head: str) -> str:
    """A column's header, in two lines if it has a metric or several words."""
    lines = [latex_text(line) for line in head_lines(head)]
    return lines[0] if len(lines) == 1 else rf"\shortstack[r]{{{NEW_LINE.join(lines)}}}"
