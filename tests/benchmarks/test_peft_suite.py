"""PEFT's own suite on our tuner: the counts of a result, and the suite itself where its sdist has been unpacked."""

import os
import re
from pathlib import Path

import pytest

from benchmarks.peft_suite import main, report, unpacked

RESULT = """<testsuites><testsuite>
<testcase classname="tests.test_config.TestPeftConfig" name="a"/>
<testcase classname="tests.test_config.TestPeftConfig" name="b"><failure message="no"/></testcase>
<testcase classname="tests.test_custom_models.TestPeftCustomModel" name="c"><error message="no"/></testcase>
<testcase classname="tests.test_custom_models.TestPeftCustomModel" name="d">
  <skipped message="cannot apply: x"/></testcase>
</testsuite></testsuites>"""


def test_the_report_counts_each_outcome_by_file_and_names_the_reasons(tmp_path):
    (tmp_path / "result.xml").write_text(RESULT)
    lines = report(tmp_path / "result.xml").splitlines()
    assert "| test_config | 1 | 1 | 0 |" in lines
    assert "| test_custom_models | 0 | 1 | 1 |" in lines
    assert "| all | 1 | 2 | 1 |" in lines
    assert "| 1 | cannot apply: x |" in lines


@pytest.mark.slow
def test_a_file_of_the_suite_passes(capsys):
    """Where PEFT_SUITE is the --work of an earlier ``python -m benchmarks.peft_suite``: nothing is downloaded."""
    work = os.environ.get("PEFT_SUITE")
    if work is None:
        pytest.skip("PEFT_SUITE names no folder in which benchmarks.peft_suite has unpacked PEFT's sdist")
    assert (unpacked(Path(work)) / "tests").is_dir()
    assert main(["test_config", "--work", work]) == 0
    assert re.search(r"\| all \| [1-9]\d* \| 0 \|", capsys.readouterr().out)
