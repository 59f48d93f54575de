"""The report of folders as users have them."""

import re

import pytest

from seq2seq.report.__main__ import main
from seq2seq.report.collect import collect_runs
from seq2seq.report.methods import methods_of
from seq2seq.report.page import write_comparison
from seq2seq.report.tables import method_table
from tests.seq2seq.report.conftest import assert_fits
from tests.seq2seq.report.situations import KINDS, SITUATIONS, own_data, thirty_methods


@pytest.mark.parametrize("name", SITUATIONS)
def test_every_situation_has_a_report_that_names_its_metric(name, tmp_path):
    SITUATIONS[name](tmp_path / "runs")
    write_comparison(tmp_path / "runs", tmp_path / "report")
    assert_fits((tmp_path / "report" / "results.tex").read_text(), tmp_path)
    page = (tmp_path / "report" / "report.md").read_text()
    assert "average_metrics" not in page
    assert "own_files" not in page
    pictures = re.findall(r"!\[.*?\]\((.*?)\)", page)
    assert {"metric_by_parameters.png", "learning_curves.png", "memory_by_layer.png"} <= {*pictures}
    assert ("low_resource.png" in pictures) == (name == "low_resource")
    assert ("\n† all answers are equal" in page) == (name == "thirty_methods")


def test_own_data_sets_are_tasks_and_what_differs_is_named(tmp_path):
    own_data(tmp_path)
    methods = methods_of(collect_runs(tmp_path))
    assert {method.label: set(method.groups) for method in methods} == {
        "tt_lora r4": {"reviews", "questions"},
        "tt_lora r4, shared middle core": {"reviews"},
        "tt_lora r4, trained on augmented": {"reviews"},
    }
    assert "/home" not in " ".join(method.label for method in methods)


def test_a_data_set_is_called_as_the_run_says(write_run, tmp_path):
    for name, file in (("a", "x/test.tsv"), ("b", "y/test.tsv")):
        write_run(name, 0.5, task_name=None, task="mine", data_name="mine", test_file=file)
    (method,) = methods_of(collect_runs(tmp_path / "outputs"))
    assert set(method.groups) == {"mine"}


def test_equal_files_of_two_folders_are_two_tasks(write_run, tmp_path):
    for name, file in (("a", "x/data/test.tsv"), ("b", "y/data/test.tsv")):
        write_run(name, 0.5, task_name=None, task="data", test_file=file)
    (method,) = methods_of(collect_runs(tmp_path / "outputs"))
    assert set(method.groups) == {"x/data", "y/data"}


def test_constant_answers_have_a_footnote(tmp_path):
    thirty_methods(tmp_path)
    methods = methods_of(collect_runs(tmp_path))
    table = method_table("All training rows", methods, methods)
    assert len(table.rows) == len(KINDS)
    assert table.rows[-1][1:5] == ["layer_norm, frozen", "3", "0.0000 ± 0.0000†", "0.0000 ± 0.0000†"]
    assert sum("†" in cell for row in table.rows for cell in row) == 2
    assert table.notes == {"†": "all answers are equal; the correlation is then reported as 0"}


@pytest.mark.parametrize(
    ("patterns", "chosen"),
    [
        (["tt_*"], {"tt_lora/seed-0", "tt_lora/seed-1", "tt_single"}),
        (["seed-0"], {"tt_lora/seed-0", "phm/seed-0"}),
        (["*/seed-0"], {"tt_lora/seed-0", "phm/seed-0"}),
        (["phm", "tt_single"], {"phm/seed-0", "tt_single"}),
        (["phm/*"], {"phm/seed-0"}),
    ],
)
def test_patterns_choose_runs(patterns, chosen, write_run, tmp_path):
    for number, name in enumerate(("tt_lora/seed-0", "tt_lora/seed-1", "tt_single", "phm/seed-0")):
        write_run(name, 0.5, seed=number)
    assert {run.name for run in collect_runs(tmp_path / "outputs", patterns)} == chosen


def test_a_pattern_that_matches_nothing_is_refused(write_run, tmp_path, capsys):
    write_run("phm", 0.5)
    assert main([str(tmp_path / "outputs"), "--runs", "phm", "tt_*"]) == 2
    assert "Option --runs has patterns of run folders; got 'tt_*', which matches none" in capsys.readouterr().err
    assert main([str(tmp_path / "outputs"), "--runs", "p*"]) == 0
    assert "--runs 'p*'" in (tmp_path / "outputs" / "report" / "report.md").read_text()
