"""The benchmark of expert weights, on the tiny model."""

import pytest

from benchmarks.experts import IMPLEMENTATIONS, METHODS, main


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_the_table_has_every_method_and_tensor_trains_keep_less(capsys):
    assert main(["--quick"]) == 0
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in capsys.readouterr().out.splitlines()[2:]]
    assert [row[:2] for row in rows] == [[name, i] for i in IMPLEMENTATIONS for name in METHODS]
    assert all(float(row[3]) > 0 and float(row[4]) > 0 for row in rows)
