"""The report of many runs: report.md, index.html, results.csv, runs.csv and the plots in one directory.

index.html needs no other file: its style and its plots stand inside, and it loads nothing. Its tables are sorted by a
press on a column's head.
"""

import base64
import math
from collections import Counter
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from adapters import ConfigurationError
from adapters.saved.files import replace_file
from seq2seq.report.collect import STATES, Run, collect_runs
from seq2seq.report.methods import Method, methods_of
from seq2seq.report.plots import PLOTS, draw_low_resource
from seq2seq.report.tables import method_cells, results_frame, runs_frame
from seq2seq.run_folder import write_text

PAGES = {"report.md": "report.md.jinja", "index.html": "index.html.jinja"}

TEMPLATES = Environment(
    loader=PackageLoader("seq2seq.report"),
    autoescape=lambda name: "html" in name,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
TEMPLATES.filters["cell"] = lambda text: text.replace("|", "\\|").replace("\n", " ")  # of a Markdown table


@dataclass(frozen=True)
class Plot:
    """A picture of a page: what it shows, its file, and the file's content for a page that holds it."""

    title: str
    file: str
    base64: str


@dataclass(frozen=True)
class Table:
    """A table of text: what it compares, header and rows."""

    title: str
    header: list[str]
    rows: list[list[str]]


@dataclass(frozen=True)
class Section:
    """What a page has on one backbone: a table for each number of training rows, and plots."""

    model: str
    tables: list[Table]
    plots: list[Plot]


def write_comparison(root: Path, out: Path) -> str:
    """Write the report of all runs below ``root`` into ``out``, and return one sentence about it.

    Raises:
        ConfigurationError: there is no run below ``root``, or ``out`` cannot be written to.
    """
    runs = collect_runs(root)
    methods = methods_of(runs)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(
            f"Option --out names a directory; {str(out)!r} cannot be made ({error}): choose another."
        ) from None
    replace_file(out / "results.csv", lambda path: results_frame(methods).to_csv(path, index=False))
    replace_file(out / "runs.csv", lambda path: runs_frame(runs, methods).to_csv(path, index=False))
    by_model = [(model, list(members)) for model, members in groupby(methods, key=lambda method: method.model)]
    sections = []
    for number, (model, members) in enumerate(by_model):
        tables = [
            Table(
                "All training rows" if rows is None else f"{rows} training rows of a task",
                *method_cells([method for method in members if method.train_rows == rows], methods),
            )
            for rows in numbers_of_rows(members)
        ]
        sections.append(Section(model, tables, draw_plots(out, members, f"_{number}" if number else "")))
    counts = Counter(run.state for run in runs)
    sentence = ", ".join(f"{counts[state]} {state}" for state in STATES if counts[state])
    for file, template in PAGES.items():
        page = TEMPLATES.get_template(template).render(
            root=root.as_posix(),
            out=out.as_posix(),
            sentence=sentence,
            sections=sections,
            runs=runs_table(runs, methods),
        )
        write_text(out / file, page)
    return f"Runs: {sentence}. The report is in {out / 'index.html'} and {out / 'report.md'}."


def numbers_of_rows(methods: list[Method]) -> list[int | None]:
    """To how many training rows methods are limited, the most first; None is no limit."""
    found = {method.train_rows for method in methods}
    return sorted(found, key=lambda rows: -math.inf if rows is None else -rows)


def draw_plots(out: Path, methods: list[Method], suffix: str) -> list[Plot]:
    """The plots that there are numbers for; methods are compared on the number of rows that most of them have."""
    counts = Counter(method.train_rows for method in methods)
    most = max(numbers_of_rows(methods), key=counts.__getitem__)
    compared = [method for method in methods if method.train_rows == most]
    plots = []
    for name, (title, draw) in PLOTS.items():
        path = out / f"{name}{suffix}.png"
        if draw(path, methods if draw is draw_low_resource else compared):
            plots.append(Plot(title, path.name, base64.b64encode(path.read_bytes()).decode()))
        else:
            path.unlink(missing_ok=True)
    return plots


def runs_table(runs: list[Run], methods: list[Method]) -> list[list[str]]:
    """Name, state, method and reason of each run; those that are not finished first."""
    labels = {run.name: method.label for method in methods for group in method.groups.values() for run in group.runs}
    ordered = sorted(runs, key=lambda run: (run.state == "finished", run.name))
    return [[run.name, run.state, labels.get(run.name, "–"), run.sentence] for run in ordered]
