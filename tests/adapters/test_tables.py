"""Plain-text tables."""

from adapters.tables import render_table


def test_a_table_has_a_title_and_cells_and_right_aligns_numbers():
    text = render_table("Sizes", ["name", "numbers"], [["wi", "7"], ["[bold]wo", "1,024"]])
    lines = [line for line in text.splitlines() if line]
    assert lines[0] == "Sizes"
    assert lines[1].split() == ["name", "numbers"]
    first, second = lines[-2:]
    assert first.split() == ["wi", "7"]
    assert second.split() == ["[bold]wo", "1,024"]
    assert len(first) == len(second)


def test_a_table_without_rows_is_its_header():
    assert render_table("None", ["a", "b"], []).split()[:3] == ["None", "a", "b"]
