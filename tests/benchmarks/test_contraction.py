"""The benchmark of a layer, run on a small one: its record and its tables."""

import json

import pytest
import torch

import t3nsor as t3
from benchmarks import contraction_tables, peers
from benchmarks.contraction import main
from benchmarks.contraction_tables import by_layer, others, regret, regret_of_choice, summary

pytest.importorskip("peft", reason="the extra 'peft' is not installed")

SMALL = ["--layers", "16x24", "--tokens", "8", "--d", "3", "--rank", "2", "8", "--rounds", "2", "--dtypes", "float32"]


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    folder = tmp_path_factory.mktemp("benchmarks")
    assert main([*SMALL, "--out", str(folder)]) == 0
    assert {path.name for path in folder.iterdir()} == {"contraction.json", "contraction.md", "contraction.png"}
    return json.loads((folder / "contraction.json").read_text())


def test_the_record_describes_the_machine(record):
    assert record["machine"]["torch"] == torch.__version__
    assert record["machine"]["threads"] == torch.get_num_threads()


def test_the_record_has_a_cell_with_times_for_each_choice(record):
    cells = record["cells"]
    assert [(cell["mode"], cell["rank"]) for cell in cells] == [
        (mode, rank) for mode in ("cheapest", "ascending") for rank in (2, 8)
    ]
    for cell in cells:
        assert {"frozen", "auto", "PEFT LoRA"} <= cell["seconds"].keys()
        assert any(name.startswith("way ") for name in cell["seconds"])
        assert all(median > 0 for median, *_ in cell["seconds"].values())
        assert cell["parameters"]["PEFT LoRA"] == 8 * (16 + 24)
    assert "core after core" in cells[3]["seconds"]
    assert "core after core" not in cells[0]["seconds"]


def test_existing_cells_are_not_measured_again(record, tmp_path):
    begun = {"machine": record["machine"], "cells": record["cells"][1:]}
    (tmp_path / "contraction.json").write_text(json.dumps(begun))
    assert main([*SMALL, "--out", str(tmp_path)]) == 0
    cells = json.loads((tmp_path / "contraction.json").read_text())["cells"]
    assert cells[:-1] == record["cells"][1:]
    assert {**cells[-1], "seconds": {}} == {**record["cells"][0], "seconds": {}}
    assert sorted(cells, key=contraction_tables.in_order)[0] == cells[-1]


def test_cells_of_different_machines_are_not_mixed(record, tmp_path):
    other = json.dumps({"machine": {**record["machine"], "threads": 3}, "cells": []})
    (tmp_path / "contraction.json").write_text(other)
    with pytest.raises(SystemExit, match=r"'threads': 3.*choose another folder with --out"):
        main([*SMALL, "--out", str(tmp_path)])
    assert (tmp_path / "contraction.json").read_text() == other


@pytest.mark.parametrize("content", ["", "[]", '{"cells": []}'])
def test_an_unrelated_file_is_not_overwritten(tmp_path, content):
    (tmp_path / "contraction.json").write_text(content)
    with pytest.raises(
        SystemExit, match=r"written by this benchmark can be resumed; .*choose another folder with --out"
    ):
        main([*SMALL, "--out", str(tmp_path)])
    assert (tmp_path / "contraction.json").read_text() == content


def test_the_tables_have_a_row_for_each_group(record):
    assert summary(record["cells"]).row_count == 2
    assert by_layer(record["cells"]).row_count == 2
    assert others(record["cells"]).row_count == 1


def test_regret_uses_the_measured_auto_and_regret_of_choice_the_chosen_strategy():
    cell = {"plan": "halves@1", "seconds": {"auto": [1.1], "way halves@1": [1.0], "way fused, fused, halves@1": [2.0]}}
    assert (regret(cell), regret_of_choice(cell)) == (1.1, 1.0)
    cell["plan"] = "fused, halves@1, halves@1"
    assert regret(cell) == regret_of_choice(cell) == 1.1
    cell["plan"] = "fused, fused, halves@1"
    assert regret_of_choice(cell) == 2.0


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.06123, "0.0612"),
        (0.5, "0.500"),
        (1.0, "1.00"),
        (9.876, "9.88"),
        (99.95, "100.0"),
        (166.5, "166"),
        (1234.5, "1,234"),
    ],
)
def test_times_have_three_significant_digits(value, text):
    assert contraction_tables.three_digits(value) == text


def test_the_tables_can_be_rebuilt_from_the_file(record, tmp_path, capsys):
    (tmp_path / "contraction.json").write_text(json.dumps(record))
    assert contraction_tables.main([str(tmp_path / "contraction.json")]) == 0
    assert "contraction.png" in capsys.readouterr().out
    assert (tmp_path / "contraction.md").read_text().count("| dtype |") == 3


@pytest.mark.parametrize("name", ["core_after_core", "tensor_train", "adapted"])
def test_the_implementations_of_a_train_agree(name):
    linear = torch.nn.Linear(12, 8, bias=False)
    layer = t3.TTLinear(12, 8, False, d=3, tt_rank=3)
    x = torch.randn(5, 12)
    arguments = (linear, layer, "auto") if name == "tensor_train" else (linear, layer)
    candidate = getattr(peers, name)(*arguments)
    torch.testing.assert_close(candidate.product(x), linear(x) + x @ layer.full().T)
    assert candidate.parameters == sum(core.numel() for core in layer.cores)
