"""Tables for LaTeX."""

import re

import pytest

from seq2seq.report.latex import latex_table, latex_text
from seq2seq.report.tables import Table


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("tt_lora & 100%", r"tt\_lora \& 100\%"),
        ("0.5 ± 0.1", r"0.5 $\pm$ 0.1"),
        ("-0.01 ± 0.1 (3)", r"$-$0.01 $\pm$ 0.1 (3)"),
        ("+0.01", r"$+$0.01"),
        ("r2-4", "r2-4"),
        ("1e-05", "1e-05"),
        (r"C:\x{}~^#$", r"C:\textbackslash{}x\{\}\textasciitilde{}\textasciicircum{}\#\$"),
        ("0.0000†", r"0.0000$^\dagger$"),
        ("–", "--"),
    ],
)
def test_text_is_escaped(text, escaped):
    assert latex_text(text) == escaped


def test_a_table_uses_booktabs_and_leaves_out_costs_that_a_paper_does_not_need():
    header = ["", "method", "stsb (Spearman)", "trainable parameters", "peak MiB"]
    table = Table("All rows", header, [["1", "tt_lora r4", "-0.5000 ± 0.1†", "1,000", "3"]], {"†": "all are equal"})
    source = latex_table("a_model", table)
    assert r"\caption{a\_model: all rows.}" in source
    body = re.search(r"\\toprule\n(.*)\\bottomrule", source, re.DOTALL)[1]
    assert [line.split(" & ") for line in body.splitlines()] == [
        ["method", "stsb (Spearman)", r"trainable parameters \\"],
        [r"\midrule"],
        [r"tt\_lora r4", r"$-$0.5000 $\pm$ 0.1$^\dagger$", r"1,000 \\"],
    ]
    assert r"\begin{tabular}{lrr}" in source
    assert r"$^\dagger$ all are equal." in source
