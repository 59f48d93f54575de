"""The documentation is correct: code runs and prints what is shown, JSON loads, links and messages match the project.

```python   the blocks of a page run in order in one namespace, from a copy of the project's root
```text     directly after a python block: its output, compared literally
```json     an adapter, a list of adapters, or a run (missing required keys are filled in)
"""

import contextlib
import io
import itertools
import json
import re
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import pytest
import torch
import transformers
import yaml

import t3nsor
from adapters import AdapterConfig, as_configs, attach, attachments
from adapters.base.places import PLACES
from adapters.injection import HOSTS
from seq2seq.configuration.reading import load_experiment, read_experiment
from seq2seq.configuration.sweep import expand
from seq2seq.report import result_table
from seq2seq.tasks import metric_classes
from seq2seq.tasks import registry as tasks
from seq2seq.workload import WORKLOADS
from third_party.models.t5 import T5Config, T5ForConditionalGeneration

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
LINKED = [
    *ROOT.glob("*.md"),
    *sorted(path for folder in ("docs", "examples") for path in (ROOT / folder).rglob("*.md")),
]
"""Also pages without code: reports, lab notes, the changelog."""
REGISTRIES = (
    AdapterConfig.kinds,
    HOSTS,
    PLACES,
    t3nsor.FORMATS,
    tasks.TASKS,
    metric_classes.METRICS,
    WORKLOADS,
)
LEAST, ANY_TASK = {"experiment_name": "docs"}, {"task_name": "world_sentiment"}
"""Values that complete a run of which a page shows only some keys."""
PROJECT_PATH = r"`((?:docs|configs|notebooks|assets|tests|t3nsor|adapters|third_party|seq2seq)/[\w./-]*)`"
"""A path in code font that must exist; outputs/ and the like are written by runs."""


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, the line of the page where it begins, the line after its end."""

    language: str
    text: str
    line: int
    end: int


def blocks(text: str) -> list[Block]:
    found = []
    for match in re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        line = text.count("\n", 0, match.start()) + 2
        found.append(Block(match[1], match[2], line, text.count("\n", 0, match.end()) + 2))
    return found


def wrong_outputs(text: str, name: str) -> list[tuple[int, str, str]]:
    """Run the python blocks of a page and return (line, printed, shown) of each that differs from its text block."""
    namespace = {"__name__": "page"}
    found = []
    for block, following in itertools.pairwise([*blocks(text), None]):
        if block.language != "python":
            continue
        printed = io.StringIO()
        code = compile("\n" * (block.line - 1) + block.text, name, "exec", dont_inherit=True)
        with contextlib.redirect_stdout(printed):
            exec(code, namespace)
        shown = following is not None and following.language == "text"
        between = "\n".join(text.splitlines()[block.end - 1 : following.line - 2]) if shown else ""
        if shown and not between.strip() and printed.getvalue().strip("\n") != following.text.strip("\n"):
            found.append((following.line, printed.getvalue(), following.text))
    return found


def load_json(text: str) -> None:
    """Load a JSON block as an adapter, a list of adapters or a run."""
    values = json.loads(text)
    if isinstance(values, list) or "kind" in values:
        as_configs(values)
        return
    has_rows = {"task_name", "mixture", "train_file", "corpus", "function_class", "layout"} & values.keys()
    for cell in expand({**LEAST, **({} if has_rows else ANY_TASK), **values}):
        read_experiment(cell)


def missing_targets(text: str, folder: Path) -> list[str]:
    """Return link and image targets, anchors, and project paths in code font that do not exist."""
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    missing = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose):
        path, _, anchor = target.partition("#")
        if re.match(r"\w+:", target):
            continue
        page = folder / path
        if not page.exists() or (anchor and anchor not in anchors(page.read_text() if path else text)):
            missing.append(target)
    return missing + [path for path in re.findall(PROJECT_PATH, prose) if not (ROOT / path).exists()]


def anchors(text: str) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A copy of the project's root in which a page may write; registries and random state are restored."""
    for entry in ROOT.iterdir():
        if entry.name != "outputs":
            (tmp_path / entry.name).symlink_to(entry)
    monkeypatch.chdir(tmp_path)
    verbosity = transformers.utils.logging.get_verbosity()
    with contextlib.ExitStack() as stack:
        for registry in REGISTRIES:
            stack.enter_context(mock.patch.dict(registry))
        stack.enter_context(torch.random.fork_rng(devices=[]))
        yield tmp_path
    transformers.utils.logging.set_verbosity(verbosity)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # of PEFT's own
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_code_runs_and_prints_what_the_page_shows(page, project):
    assert wrong_outputs(page.read_text(), page.name) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_json_loads(page, project):
    for block in blocks(page.read_text()):
        if block.language == "json":
            load_json(block.text)


@pytest.mark.parametrize("page", LINKED, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_have_targets(page):
    assert missing_targets(page.read_text(), page.parent) == []


def test_the_index_links_every_page():
    linked = set(re.findall(r"\]\(([\w/]+\.md)", (ROOT / "docs" / "README.md").read_text()))
    assert linked >= {page.name for page in PAGES if page.parent.name == "docs"} - {"README.md"}


def test_the_checks_detect_errors(project):
    page = "```python\nx = 2\nprint(x)\n```\n\n```text\n3\n```\n"
    assert wrong_outputs(page, "page") == [(7, "2\n", "3\n")]
    assert wrong_outputs(page.replace("3", "2"), "page") == []
    with pytest.raises(ValueError, match="kind"):
        load_json('{"kind": "tt_lore"}')
    with pytest.raises(ValueError, match="seeds"):
        load_json('{"seeds": 1}')
    assert missing_targets("[a](nowhere.md) [b](kinds.md#nothing) `seq2seq/nothing.py`", ROOT / "docs") == [
        "nowhere.md",
        "kinds.md#nothing",
        "seq2seq/nothing.py",
    ]


def test_the_adapters_of_the_migration_page_attach_to_a_t5():
    config = T5Config(vocab_size=100, d_model=384, d_ff=96, d_kv=4, num_heads=2, num_layers=12)
    shown = re.findall(r"`(\[?\{.*?\}\]?)`", (ROOT / "docs" / "migration.md").read_text())
    assert len(shown) > 20
    for text in shown:
        with torch.device("meta"):
            model = T5ForConditionalGeneration(config)
        assert attachments(attach(model, json.loads(text)))


MEASURED = {
    "experiment_name": "quickstart",
    "task": "world_similarity",
    "adapter": [{"kind": "tt_lora"}],
    "metrics": {"validation": {"spearman": 0.9797}, "test": {"spearman": 0.9752}},
    "baselines": {
        "majority": {"spearman": 0.0, "constant_predictions": 1.0},
        "bag_of_words": {"spearman": 0.0569},
        "frozen_backbone": {"spearman": 0.0, "invalid": 1.0},
        "random_backbone": {"spearman": 0.0, "constant_predictions": 1.0},
    },
    "parameters": {"trainable_parameters": 10320, "base_parameters": 1059712, "share": 0.00974},
    "adapter_bytes": 46960,
    "costs": {"step_seconds_median": 0.0651, "tokens_per_second": 13024, "peak_memory_bytes": 642 * 2**20},
    "merge_difference": 1.2e-06,
}
"""What the quickstart of the README has measured."""


def test_the_result_of_the_quickstart_has_the_form_that_is_printed():
    experiment = load_experiment(ROOT / "configs" / "quickstart.json")
    printed = result_table(experiment, MEASURED).splitlines()
    shown = "\n".join(f"    {line}".rstrip() for line in printed)
    shown = shown.replace(experiment.run.directory.as_posix(), ".../outputs/quickstart")
    assert shown in (ROOT / "README.md").read_text()


def test_the_citation_names_the_version():
    version = t3nsor.__version__
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == version
    assert f"version = {{{version}}}" in (ROOT / "docs" / "README.md").read_text()
