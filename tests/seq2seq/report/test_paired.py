"""Paired differences against scipy, and which pairs there are."""

import numpy as np
import pytest
from scipy.stats import sem, ttest_rel

from seq2seq.report.__main__ import main
from seq2seq.report.collect import collect_runs
from seq2seq.report.methods import methods_of
from seq2seq.report.paired import paired_difference
from seq2seq.report.tables import difference_table, results_frame

VALUES = {"phm": [0.61, 0.55, 0.7], "bitfit": [0.58, 0.56, 0.62]}


@pytest.fixture
def methods(write_run, tmp_path):
    """Two methods with three seeds on rte; on cola with the seeds 0 and 1, and with another seed each."""
    for kind, values in VALUES.items():
        for seed, value in enumerate(values):
            write_run(f"{kind}-{seed}", value, seed=seed, adapter=[{"kind": kind}])
            cola = seed if seed < 2 else {"phm": 7, "bitfit": 8}[kind]
            write_run(f"cola-{kind}-{seed}", value / 2, seed=cola, task_name="cola", adapter=[{"kind": kind}])
    return {method.label: method for method in methods_of(collect_runs(tmp_path / "outputs"))}


def test_a_difference_is_that_of_scipy(methods):
    found = paired_difference(methods["bitfit"], methods["phm"], ["rte"])
    differences = np.subtract(VALUES["bitfit"], VALUES["phm"])
    np.testing.assert_allclose([found.mean, found.standard_error], [differences.mean(), sem(differences)])
    statistic = ttest_rel(VALUES["bitfit"], VALUES["phm"]).statistic
    assert found.mean / found.standard_error == pytest.approx(statistic)
    assert found.text() == f"{differences.mean():+.4f} ± {sem(differences):.4f} (3)"


def test_only_seeds_that_both_have_are_pairs(methods):
    found = paired_difference(methods["bitfit"], methods["phm"], ["cola"])
    assert found.pairs == 2
    assert found.mean == pytest.approx(np.subtract(VALUES["bitfit"], VALUES["phm"])[:2].mean() / 2)
    assert paired_difference(methods["bitfit"], methods["phm"], ["rte", "cola"]).pairs == 2
    assert paired_difference(methods["bitfit"], methods["phm"], ["sst2"]) is None


def test_one_pair_has_no_standard_error(write_run, tmp_path):
    for kind, value in (("phm", 0.5), ("bitfit", 0.4)):
        write_run(kind, value, adapter=[{"kind": kind}])
    first, second = methods_of(collect_runs(tmp_path / "outputs"))
    assert paired_difference(second, first, ["rte"]).text() == "-0.1000 (1)"


def test_the_table_compares_with_the_best_or_with_the_reference(methods):
    made = difference_table(list(methods.values()))
    assert made.title == "Paired differences to phm"
    assert [row[0] for row in made.rows] == ["bitfit"]
    assert made.header == ["method", "cola", "rte", "average"]
    assert difference_table(list(methods.values()), "bitfit").title == "Paired differences to bitfit"
    frame = results_frame(list(methods.values()), "bitfit").set_index(["method", "task"])
    assert frame.loc[("phm", "rte"), "difference_pairs"] == 3
    assert frame.loc[("bitfit", "rte"), "difference"] == 0


def test_an_unknown_reference_is_refused(methods, tmp_path, capsys):
    assert main([str(tmp_path / "outputs"), "--reference", "bitfitt"]) == 2
    assert (
        "Option --reference is the name of a method; got 'bitfitt': did you mean 'bitfit'?" in capsys.readouterr().err
    )
    assert not (tmp_path / "outputs" / "report").exists()
