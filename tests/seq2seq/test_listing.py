"""``--list`` prints every name that a configuration can have, from the registries themselves."""

import pytest

from adapters import AdapterConfig
from run_seq2seq import main
from seq2seq.listing import answers_of, list_names, rows_of, summary_of, tables
from seq2seq.tasks.registry import TASKS
from seq2seq.tasks.task_spec import TaskSpec
from seq2seq.workload import WORKLOADS
from t3nsor import FORMATS


def test_the_option_needs_no_configuration(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--list"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.rstrip("\n") == list_names()


@pytest.mark.parametrize(
    ("title", "registry"),
    [("Kinds", AdapterConfig.kinds), ("Tensor formats", FORMATS), ("Tasks", TASKS), ("Workloads", WORKLOADS)],
)
def test_a_table_has_a_row_for_each_name(title, registry):
    (table,) = [table for table in tables() if table.startswith(title)]
    first_words = [line.split()[0] for line in table.splitlines() if line.strip() and not line.startswith("  ")]
    assert first_words[-len(registry) :] == [*registry]


def test_every_kind_and_format_has_a_line_about_it():
    things = {**AdapterConfig.kinds, **FORMATS}
    ours = {name: thing for name, thing in things.items() if not thing.__module__.startswith("tests.")}
    assert [name for name, thing in ours.items() if len(summary_of(thing)) < 20] == []


SPECS = [
    ({"labels": None}, "free text"),
    ({"labels": ("no", "yes")}, "no, yes"),
    ({"labels": tuple("abcde")}, "5 labels, a to e"),
]


@pytest.mark.parametrize(("fields", "answers"), SPECS)
def test_answers_are_written_out_if_they_are_few(fields, answers):
    assert answers_of(TaskSpec(name="t", source="{a}", metrics=(), **fields)) == answers


@pytest.mark.parametrize(("hub", "rows"), [(None, "ship with the project"), (("glue", "rte"), "glue/rte")])
def test_rows_are_those_of_the_project_or_of_the_hub(hub, rows):
    assert rows_of(TaskSpec(name="t", source="{a}", metrics=(), hub=hub)) == rows
