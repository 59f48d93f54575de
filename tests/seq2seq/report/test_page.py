"""The files of a report, and that its page is self-contained."""

import itertools
import json
import re
from functools import partial
from html.parser import HTMLParser

import pandas as pd
import pytest

from seq2seq.report.__main__ import main
from seq2seq.report.collect import collect_runs
from seq2seq.report.methods import methods_of
from seq2seq.report.tables import results_frame
from tests.seq2seq.report.conftest import write_run_folder

FILES = {"report.md", "index.html", "results.csv", "results.tex", "runs.csv"}


def write_runs(root):
    """Two methods with two seeds each, a failed run, a run with a broken result, and an unfinished run."""
    write_run = partial(write_run_folder, root)
    for seed in (0, 1):
        write_run(f"full/seed-{seed}", 0.8 + seed / 10, 10**6, adapter=[{"kind": "none"}], seed=seed)
        write_run(f"lora/seed-{seed}", 0.6 + seed / 10, seed=seed)
    write_run("failed", failure="A weight is <infinite> | lost.")
    write_run("unfinished", seed=9)
    (write_run("broken", 0.5, seed=8) / "metrics.json").write_text(json.dumps({"task": 3}))


@pytest.fixture
def outputs(tmp_path):
    write_runs(tmp_path / "outputs")
    return tmp_path / "outputs"


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """The directory of a report, whose runs are in ../outputs; tests only read it."""
    root = tmp_path_factory.mktemp("report")
    write_runs(root / "outputs")
    assert main([str(root / "outputs"), "--out", str(root / "results")]) == 0
    return root / "results"


class Page(HTMLParser):
    """The text of a page and every address in it."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.text, self.addresses, self.open = [], [], []
        self.feed(source)

    def handle_starttag(self, tag, attributes):
        self.addresses += [value for name, value in attributes if name in ("src", "href", "action", "data")]
        if tag not in ("meta", "img", "link", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def test_the_page_is_complete_and_self_contained(report):
    source = (report / "index.html").read_text()
    page = Page(source)
    text = " ".join(page.text)
    assert page.open == []
    assert "lora" in page.text  # a method with the name of its sweep
    for words in ("full fine-tuning", "0.6500 ± 0.0707", "lora/seed-1", "A weight is <infinite> | lost."):
        assert words in text
    assert page.addresses
    assert all(address.startswith("data:image/png;base64,") for address in page.addresses)
    assert not re.search(r"https?:|url\(|@import", source)


def test_the_files_of_a_report(report):
    written = {path.name for path in report.iterdir()}
    names = ("metric_by_parameters", "learning_curves", "memory_by_layer")
    plots = {f"{name}.{form}" for name in names for form in ("png", "pdf", "svg")}
    assert written == FILES | plots
    page = (report / "report.md").read_text()
    assert set(re.findall(r"\]\((.*?)\)", page)) == plots | {"results.tex"}
    assert "| failed | failed | – | A weight is <infinite> \\| lost. |" in page
    assert "metrics.json cannot be read at task" in page


def test_markdown_tables_have_equally_many_cells_per_row(report):
    lines = (report / "report.md").read_text().splitlines()
    tables = [line for line in lines if line.startswith("|")]
    widths = [len(re.findall(r"(?<!\\)\|", line)) for line in tables]
    rules = [number for number, line in enumerate(tables) if set(line) <= set("|-")]
    assert len(rules) == 3
    starts = [rule - 1 for rule in rules]
    for start, end in itertools.pairwise([*starts, len(tables)]):
        assert len(set(widths[start:end])) == 1


def test_the_csv_files_read_back(report):
    results = pd.read_csv(report / "results.csv")
    runs = pd.read_csv(report / "runs.csv")
    expected = results_frame(methods_of(collect_runs(report.parent / "outputs")))
    assert list(results.columns) == list(expected.columns)
    assert results["mean"].tolist() == expected["mean"].tolist()
    assert results["std"].tolist() == pytest.approx([0.05 * 2**0.5] * 2)
    assert runs["run"].tolist() == [
        "broken",
        "failed",
        "full/seed-0",
        "full/seed-1",
        "lora/seed-0",
        "lora/seed-1",
        "unfinished",
    ]


def test_a_second_report_replaces_the_first(outputs, write_run, capsys):
    main([str(outputs)])
    printed = capsys.readouterr().out
    assert "4 finished, 1 failed, 1 broken, 1 running" in printed
    assert str(outputs / "report" / "index.html") in printed
    first = {path.name: path.read_bytes() for path in (outputs / "report").iterdir()}
    main([str(outputs)])
    assert {path.name: path.read_bytes() for path in (outputs / "report").iterdir()} == first
    write_run("third", 0.1, adapter=[{"kind": "bitfit"}])
    main([str(outputs)])
    assert "bitfit" in (outputs / "report" / "report.md").read_text()


def test_each_backbone_has_its_own_table(outputs, write_run):
    write_run("other", 0.3, model_name_or_path="t5-base")
    main([str(outputs)])
    page = (outputs / "report" / "report.md").read_text()
    assert re.findall(r"^## (.*)$", page, re.MULTILINE) == ["backbone", "t5-base", "Runs"]
    assert (outputs / "report" / "metric_by_parameters_1.png").is_file()


def test_each_row_limit_has_its_own_table(write_run, tmp_path):
    for rows in (100, 500, None):
        write_run(f"n{rows}", 0.5, max_train_samples=rows)
    main([str(tmp_path / "outputs")])
    page = (tmp_path / "outputs" / "report" / "report.md").read_text()
    headings = [line for line in re.findall(r"^### (.*)$", page, re.MULTILINE) if "rows" in line]
    assert headings[:3] == ["All training rows", "500 training rows per task", "100 training rows per task"]
    assert "![Metric against the number of training rows](low_resource.png)" in page


def test_failed_runs_alone_give_a_report(write_run, tmp_path):
    write_run("failed", failure="It was too large.")
    assert main([str(tmp_path / "outputs")]) == 0
    assert "It was too large." in (tmp_path / "outputs" / "report" / "report.md").read_text()


@pytest.mark.parametrize("case", ["nowhere", "empty", "file"])
def test_a_root_without_runs_is_an_error(case, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    assert main([str(tmp_path / case)]) == 2
    assert capsys.readouterr().err.startswith("Refused: ")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "file"]


def test_an_unwritable_directory_is_an_error(outputs, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main([str(outputs), "--out", str(tmp_path / "file")]) == 2
    err = capsys.readouterr().err
    assert "Refused: Option --out" in err
    assert err.endswith(": choose another.\n")
