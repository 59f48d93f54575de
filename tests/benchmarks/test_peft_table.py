"""The table of docs/peft.md is what the probes find; a wrong result is no entry but an error."""

import pytest
import torch

from benchmarks import peft_table
from benchmarks.peft_table import BEGIN, END, FORMATS, PAGE, PROBES, adapted, entry, logits, table, written

# PEFT 0.21 asks a model of transformers 5.23 for a property that has been renamed there.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

CHEAP = ["train", "merge", "LoRA export", "mixed batch", "MoE"]


def committed() -> list[list[str]]:
    lines = PAGE.read_text().partition(BEGIN)[2].partition(END)[0].strip().splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_the_cheap_columns_are_what_the_probes_find():
    head, _, *rows = committed()
    assert head == ["format", *PROBES]
    shown = [[row[0], *(row[head.index(column)] for column in CHEAP)] for row in rows]
    found = [[cell.strip() for cell in line.strip("|").split("|")] for line in table(CHEAP).splitlines()[2:]]
    assert shown == found
    assert [row[0] for row in rows] == list(FORMATS)


def test_a_wrong_result_raises_and_an_error_of_the_library_is_a_no(monkeypatch, capsys):
    monkeypatch.setattr(peft_table, "logits", lambda model: torch.rand(2))
    with pytest.raises(AssertionError, match=r"merge of .* gives a wrong result"):
        entry(peft_table.merge, {})
    monkeypatch.undo()
    assert entry(peft_table.merge, {"core_activation": "gelu"}) == "no"
    assert "MergeError: Only linear adapters" in capsys.readouterr().err


def test_adapters_are_far_from_zero_and_the_page_gets_the_table():
    with (model := adapted({})).disable_adapter():
        plain = logits(model)
    assert (logits(model) - plain).abs().max() > 0.05
    assert written(f"a\n{BEGIN}\nold\n{END}\nb", "new\n") == f"a\n{BEGIN}\nnew\n{END}\nb"
