"""``--list`` prints every name that a configuration can have, from the registries themselves."""

import logging
import re

import pytest

from adapters import AdapterConfig
from run_seq2seq import AT_IMPORT, main
from seq2seq.extras.baselines import OF_EVERY_WORKLOAD
from seq2seq.listing import answers_of, baselines, list_names, rows_of, summary_of, tables
from seq2seq.tasks.metric_classes import METRICS
from seq2seq.tasks.registry import TASKS
from seq2seq.tasks.task_spec import TaskSpec
from seq2seq.workload import WORKLOADS, workload_class
from t3nsor import FORMATS, __version__


def test_what_optional_packages_say_at_import_is_silenced_before_the_options_are_read(monkeypatch):
    """--list imports transformers, and prints its tables only."""
    for name in AT_IMPORT:
        monkeypatch.setattr(logging.getLogger(name), "level", logging.NOTSET)
    levels = []
    monkeypatch.setattr(
        "run_seq2seq.read_options", lambda _: levels.extend(logging.getLogger(name).level for name in AT_IMPORT)
    )
    monkeypatch.setattr("run_seq2seq.predict", lambda _: 0)
    assert main(["--list"]) == 0
    assert levels == [logging.ERROR] * len(AT_IMPORT)


def test_the_option_needs_no_configuration(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--list"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.rstrip("\n") == list_names()


@pytest.mark.parametrize(
    ("title", "registry"),
    [
        ("Kinds", AdapterConfig.kinds),
        ("Tensor formats", FORMATS),
        ("Tasks", TASKS),
        ("Metrics", METRICS),
        ("Workloads", WORKLOADS),
    ],
)
def test_a_table_has_a_row_for_each_name(title, registry):
    (table,) = [table for table in tables() if table.startswith(title)]
    first_words = [line.split()[0] for line in table.splitlines() if line.strip() and not line.startswith("  ")]
    assert first_words[-len(registry) :] == [*registry]


def test_the_baselines_of_each_workload_are_listed():
    rows = [*baselines()]
    assert [(name, workload) for name, _, workload in rows if workload in ("text", "all")] == [
        ("majority", "text"),
        ("bag_of_words", "text"),
        *((name, "all") for name in OF_EVERY_WORKLOAD),
    ]
    (table,) = [table for table in tables() if table.startswith("Baselines")]
    assert all(f" {name} " in table and label in table for name, label, _ in rows)


DESCRIBED = {**AdapterConfig.kinds, **FORMATS, **METRICS, **{name: workload_class(name) for name in WORKLOADS}}
INTERNAL = re.compile(r"`|\bsee\b|docs/|[a-z](Cores|Keys|Format|Network|Config)\b|raw_shape")
"""What only a reader of the code can use: markup, names of classes, places."""


@pytest.mark.parametrize("name", [name for name, cls in DESCRIBED.items() if not cls.__module__.startswith("tests.")])
def test_an_entry_has_a_sentence_for_users(name):
    sentence = summary_of(DESCRIBED[name])
    assert len(sentence) > 20
    assert sentence.endswith((".", "..."))
    assert not INTERNAL.search(sentence), sentence


def test_a_summary_is_the_first_paragraph_as_plain_text():
    class Thing:
        """A thing with
        `two` lines.

        More.
        """

    assert summary_of(Thing) == "A thing with two lines."
    assert summary_of(type("Other", (), {})) == ""


def test_the_option_prints_the_version(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert (ended.value.code, capsys.readouterr().out) == (0, f"tensorized-adapters {__version__}\n")


COMMANDS = [([], "config"), (["predict"], "run, file"), (["predict", "a"], "file")]


@pytest.mark.parametrize(("arguments", "missing"), COMMANDS)
def test_only_required_arguments_are_called_so(arguments, missing, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert capsys.readouterr().err.endswith(f"the following arguments are required: {missing}\n")


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
