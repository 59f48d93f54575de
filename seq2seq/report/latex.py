"""A table of the report as LaTeX, for a paper that uses booktabs: \\input{results.tex} has all of them."""

import re

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

LEFT_OUT = ("", "adapter bytes", "ms per step", "training tensors MiB", "peak MiB", "bytes ×", "time ×", "memory ×")
"""Columns that the page has and a paper's table does not."""


def latex_text(text: str) -> str:
    """Escape a text; a sign before a number becomes that of a formula."""
    return re.sub(r"(?<![\w}])([+-])(?=\d)", r"$\1$", "".join(SPECIAL.get(character, character) for character in text))


def latex_table(model: str, table: Table) -> str:
    """A table environment with a tabular of booktabs, its caption and its footnotes."""
    kept = [index for index, head in enumerate(table.header) if head not in LEFT_OUT]
    frame = pd.DataFrame(
        [[latex_text(row[index]) for index in kept] for row in table.rows],
        columns=[latex_text(table.header[index]) for index in kept],
    )
    body = frame.to_latex(index=False, escape=False, column_format="l" + "r" * (len(kept) - 1)).rstrip()
    notes = [rf"\par\smallskip\footnotesize {latex_text(f'{mark} {note}')}." for mark, note in table.notes.items()]
    caption = latex_text(f"{model}: {table.title[0].lower()}{table.title[1:]}")
    lines = [r"\begin{table}", r"\centering", rf"\caption{{{caption}.}}", body, *notes, r"\end{table}", ""]
    return "\n".join(lines)
