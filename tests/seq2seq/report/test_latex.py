"""Tables for LaTeX."""

import re

import pytest

from seq2seq.report.latex import latex_table, latex_text, layout
from seq2seq.report.tables import Table
from tests.seq2seq.report.conftest import assert_fits


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
    header = ["", "method", "seeds", "stsb (Spearman)", "trainable parameters", "peak MiB", "parameters ×"]
    row = ["1", "tt_lora r4", "3", "-0.500 ± 0.1†", "1,000", "3", "0.1"]
    table = Table("All rows", "Test metric", header, [row], {"†": "all are equal"})
    source = latex_table("a_model, all rows", table)
    assert r"\caption{Test metric; a\_model, all rows.}" in source
    body = re.search(r"\\toprule\n(.*)\\bottomrule", source, re.DOTALL)[1]
    assert [line.split(" & ") for line in body.splitlines()] == [
        ["method", r"\shortstack[r]{stsb \\(Spearman)}", r"\shortstack[r]{trainable \\parameters} \\"],
        [r"\midrule"],
        [r"tt\_lora r4", r"$-$0.500 $\pm$ 0.1$^\dagger$", r"1,000 \\"],
    ]
    assert r"\begin{tabular}{@{}lrr@{}}" in source
    assert r"$^\dagger$ all are equal." in source


def test_numbers_of_seeds_are_a_column_if_they_differ():
    table = Table("", "", ["method", "seeds"], [["a", "1"], ["b", "3"]])
    assert "method & seeds" in latex_table("", table)


@pytest.mark.parametrize(
    ("widths", "size", "groups"),
    [
        ([50, 70, 70], "small", [[1, 2]]),
        ([105, 75, 75, 75], "small", [[1, 2, 3]]),
        ([105, 85, 85, 85], "footnotesize", [[1, 2, 3]]),
        ([900, 85, 85, 85], "footnotesize", [[1, 2, 3]]),
        ([105, *[80] * 8], "scriptsize", [[1, 2, 3], [4, 5, 6], [7, 8]]),
        ([50, 900, 20], "scriptsize", [[1], [2]]),
    ],
)
def test_a_table_is_no_wider_than_a_line(widths, size, groups):
    assert layout(widths) == (size, groups)


@pytest.mark.parametrize(
    ("tasks", "method"),
    [
        (1, "tt_lora r4"),
        (2, "tt_lora r4, shared middle core"),
        (3, "bottleneck r4 + layer_norm, learning rate 0.001, trained on augmented"),
        (8, "tt_lora r4, tensor ring, dropout 0.1"),
    ],
)
def test_latex_sets_a_table_within_the_line(tasks, method, tmp_path):
    tasks = [
        f"{task} (exact match)" for task in ("rte", "cola", "questions", "stsb", "boolq", "cb", "wic", "wsc")[:tasks]
    ]
    header = ["", "method", "seeds", *tasks, "average", "trainable parameters", "share"]
    row = ["1", method, "3", *["-0.500 ± 0.123†"] * len(tasks), "0.500 ± 0.123", "1,000,000", "0.123%"]
    table = Table("", "Test metric, mean ± standard deviation over 3 seeds", header, [row], {"†": "all are equal"})
    assert_fits(latex_table("google/t5-base, all training rows", table), tmp_path)
