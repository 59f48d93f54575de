"""Write the report of many runs: report.md, index.html, results.tex, results.csv, runs.csv and the plots in one folder.

index.html is self-contained: styles and plots are embedded, nothing is loaded. Clicking a column header sorts a table.
"""

import base64
import math
import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from adapters import ConfigurationError
from adapters.saved.files import replace_file
from seq2seq.report.baselines import baseline_table
from seq2seq.report.collect import STATES, Run, collect_runs
from seq2seq.report.latex import latex_table
from seq2seq.report.methods import Method, methods_of
from seq2seq.report.paired import check_reference
from seq2seq.report.plots import FORMATS, PLOTS, draw_low_resource
from seq2seq.report.settings import workload_of
from seq2seq.report.tables import Table, difference_table, method_table, results_frame, runs_frame
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
    """A plot: its title, the name of its files, and the content of the PNG for a page that embeds it."""

    title: str
    name: str
    base64: str


@dataclass(frozen=True)
class Section:
    """The part of a page about one backbone: tables for each number of training rows, and plots."""

    model: str
    tables: list[Table]
    plots: list[Plot]


def write_comparison(root: Path, out: Path, patterns: Sequence[str] = (), reference: str | None = None) -> str:
    """Write the report of the runs below ``root`` into ``out`` and return a one-line summary.

    Args:
        root: a directory that contains run folders at any depth.
        out: the directory of the report.
        patterns: which runs, such as "tt_*"; all of them if there are none.
        reference: the name of the method that others are compared with; None for the best one.

    Raises:
        ConfigurationError: there is no such run or reference, or ``out`` cannot be written to.
    """
    runs = collect_runs(root, patterns)
    methods = methods_of(runs)
    check_reference(methods, reference)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(
            f"Option --out is a directory; got {str(out)!r}, which cannot be created ({error}): choose another."
        ) from None
    replace_file(out / "results.csv", lambda path: results_frame(methods, reference).to_csv(path, index=False))
    replace_file(out / "runs.csv", lambda path: runs_frame(runs, methods).to_csv(path, index=False))
    by_model = [(model, list(members)) for model, members in groupby(methods, key=lambda method: method.model)]
    sections, papers = [], []
    for number, (model, members) in enumerate(by_model):
        tables = []
        for limit in row_limits(members):
            printed = []
            title = "All training rows" if limit is None else f"{limit:,} training rows per task"
            compared = [method for method in members if method.train_rows == limit]
            for kept, digits in ((tables, 4), (printed, 3)):
                kept += [method_table(title, compared, methods, digits), baseline_table(compared, digits)]
                kept.append(difference_table(compared, reference, digits))
            where = f"{model}, {title[0].lower()}{title[1:]}"
            papers += [latex_table(where, table) for table in printed if table is not None]
        plots = draw_plots(out, members, f"_{number}" if number else "")
        sections.append(Section(model, [table for table in tables if table is not None], plots))
    write_text(out / "results.tex", "\n".join(papers))
    counts = Counter(run.state for run in runs)
    summary = ", ".join(f"{counts[state]} {state}" for state in STATES if counts[state])
    command = ["python", "-m", "seq2seq.report", root.as_posix(), "--out", out.as_posix()]
    command += ["--runs", *patterns] if patterns else []
    command += ["--reference", reference] if reference else []
    for file, template in PAGES.items():
        page = TEMPLATES.get_template(template).render(
            command=shlex.join(command),
            summary=summary,
            sections=sections,
            runs=runs_table(runs, methods),
        )
        write_text(out / file, page)
    return f"Runs: {summary}. The report is in {out / 'index.html'} and {out / 'report.md'}."


def row_limits(methods: list[Method]) -> list[int | None]:
    """Return the limits on training rows among the methods, largest first; None is no limit."""
    limits = {method.train_rows for method in methods}
    return sorted(limits, key=lambda rows: -math.inf if rows is None else -rows)


def draw_plots(out: Path, methods: list[Method], suffix: str) -> list[Plot]:
    """Draw the plots that have data; methods are compared at the row limit that most of them have."""
    counts = Counter(method.train_rows for method in methods)
    most_common = max(row_limits(methods), key=counts.__getitem__)
    compared = [method for method in methods if method.train_rows == most_common]
    own = {name: plot for method in methods for name, plot in workload_of(method.settings).report_plots.items()}
    plots = []
    for name, (title, draw) in {**PLOTS, **own}.items():
        path = out / f"{name}{suffix}.png"
        if draw(path, methods if draw is draw_low_resource else compared):
            plots.append(Plot(title, path.stem, base64.b64encode(path.read_bytes()).decode()))
        else:
            for form in ("png", *FORMATS):
                path.with_suffix(f".{form}").unlink(missing_ok=True)
    return plots


def runs_table(runs: list[Run], methods: list[Method]) -> list[list[str]]:
    """List name, state, method and reason of each run, unfinished runs first."""
    labels = {run.name: method.label for method in methods for group in method.groups.values() for run in group.runs}
    ordered = sorted(runs, key=lambda run: (run.state == "finished", run.name))
    return [[run.name, run.state, labels.get(run.name, "–"), run.sentence] for run in ordered]
