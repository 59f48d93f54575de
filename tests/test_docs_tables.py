"""The tables of the documentation equal the registries, and their figures what the project counts and computes."""

import json
import re
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import get_args

import pytest
import torch
import transformers
from peft import get_peft_model
from transformers import RobertaConfig, RobertaModel

import t3nsor
from adapters import AdapterConfig, attach, merge
from adapters.peft import TensorTrainConfig
from adapters.tensor_train.modes import Mode
from adapters.tensor_train.parameter_counts import ROBERTA_QUERY_VALUE, T5_BASE_QUERY_VALUE
from adapters.tensor_train.published import PUBLISHED, published
from seq2seq.configuration.defaults import TRAINING_DEFAULTS
from seq2seq.configuration.rules import RESERVED_ARGUMENTS
from seq2seq.experiment import RunArguments
from seq2seq.extras import EXTRAS
from seq2seq.tasks import registry as tasks
from seq2seq.tasks.keys import TaskKeys
from seq2seq.tasks.mixing import Mixture
from seq2seq.tasks.splits import SPLIT_POLICIES
from seq2seq.text.workload import TextWorkload
from seq2seq.workload import workload_class
from third_party.models.t5 import T5Config, T5ForConditionalGeneration

ROOT = Path(__file__).resolve().parents[1]


KIND_GROUPS = {
    "TT": {"tt_lora", "tt_single", "tt_adapter"},
    "bottlenecks": {"tt_adapter", "bottleneck", "low_rank", "phm", "compacter"},
}
"""Groups of kinds in the table of fields."""


def table(page: str, first_heading: str) -> list[list[str]]:
    """Return the rows of all tables of a page whose first column has this heading, without backticks."""
    rows, inside = [], False
    for line in (ROOT / "docs" / page).read_text().splitlines():
        cells = [cell.strip().replace("`", "") for cell in line.split("|")[1:-1]]
        if not cells:
            inside = False
        elif inside and set(cells[0]) != {"-"}:
            rows.append(cells)
        elif cells[0] == first_heading:
            inside = True
    return rows


def named_kinds(cell: str) -> set[str]:
    """Return the kinds named in a cell such as "all but `prompt`" or "TT, `tt_layer_norm`"."""
    named = set(re.findall(r"\w+", cell)) - {"all", "but"}
    return named.union(*(KIND_GROUPS[group] for group in named & KIND_GROUPS.keys())) - KIND_GROUPS.keys()


def default_of(field: Field) -> str:
    """Return a field's default as JSON, or "required"."""
    return "required" if field.default is MISSING else json.dumps(field.default)


def test_the_table_of_tasks_equals_the_registry():
    def answer(spec):
        if spec.labels is None:
            return "free text"
        return "0.0, 0.2, ..., 5.0" if spec.is_similarity else ", ".join(spec.labels)

    documented = table("tasks.md", "task")
    for row in documented:  # the page has the columns of a template
        row[1] = " ".join([row[0], *(f"{column}: {{{column}}}" for column in row[1].split(", "))])
    assert documented == [
        [spec.name, spec.source, answer(spec), ", ".join(spec.metrics), spec.split, spec.folder]
        for spec in tasks.TASKS.values()
    ]
    assert [row[0] for row in table("tasks.md", "split")] == list(SPLIT_POLICIES)
    assert [row[0] for row in table("tasks.md", "mixture key")] == [field.name for field in fields(Mixture)]


def test_the_tables_of_keys_equal_the_fields_of_run_workload_and_extras():
    of_runs = {"adapter": '{"kind": "none"}', "workload": '"text"'}
    of_tasks = {field.name for field in fields(TaskKeys)}
    for heading, parts, others in (
        ("run key", (RunArguments,), of_runs),
        ("extra key", EXTRAS, {}),
        ("task key", (TaskKeys,), {}),
        *((f"{name} key", (workload_class(name),), {}) for name in ("text", "classification", "causal")),
    ):
        documented = {row[0]: row[1] for row in table("configs.md", heading)}
        own = {field.name: default_of(field) for part in parts for field in fields(part)}
        kept = own if heading == "task key" else {name: own[name] for name in own.keys() - of_tasks}
        assert documented == kept | others


def test_the_tables_of_training_arguments_equal_defaults_and_reserved_arguments():
    documented = {row[0]: row[1] for row in table("configs.md", "training argument")}
    assert documented == {key: json.dumps(value) for key, value in TRAINING_DEFAULTS.items()}
    reserved = {key: why for keys, why in table("configs.md", "reserved arguments") for key in keys.split(", ")}
    assert reserved.items() <= (RESERVED_ARGUMENTS | TextWorkload.reserved_arguments).items()
    assert len(reserved) > 10


def test_the_table_of_kinds_equals_the_registry():
    assert sorted(row[0] for row in table("kinds.md", "kind")) == sorted(AdapterConfig.kinds)
    assert sorted(row[0] for row in table("kinds.md", "format")) == sorted(t3nsor.FORMATS)


def test_the_tables_of_modes_and_methods_equal_the_registries():
    assert [row[0] for row in table("formats.md", "mode")] == list(get_args(Mode))
    methods = {row[0]: row[2] for row in table("formats.md", "method") if row[0] in PUBLISHED}
    assert methods == {name: method.fields.get("format", "tensor_train") for name, method in PUBLISHED.items()}


def t5_base() -> T5ForConditionalGeneration:
    sizes = {"vocab_size": 32100, "d_model": 768, "d_ff": 3072, "d_kv": 64, "num_heads": 12}
    with torch.device("meta"):
        return T5ForConditionalGeneration(T5Config(**sizes, num_layers=12, num_decoder_layers=12))


def trainable(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def test_the_parameter_counts_of_t5_base():
    rows = table("kinds.md", "adapter")
    assert len(rows) > 20
    for adapter, parameters, share in rows:
        counted = trainable(attach(t5_base(), json.loads(adapter)))
        assert (f"{counted:,}", f"{counted / 222_882_048:.3%}") == (parameters, share), adapter


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # of PEFT's own
def test_the_parameter_counts_of_published_methods():
    rows = [row for row in table("formats.md", "method") if row[0] in PUBLISHED]
    for name, *_, t5, roberta, _ in rows:
        setting = published(name, None if name == "kronecker" else 8, ROBERTA_QUERY_VALUE)
        counted = trainable(attach(t5_base(), {**setting, "target_modules": ["q", "v"]}))
        assert counted == PUBLISHED[name].parameters(8, T5_BASE_QUERY_VALUE), name
        assert f"{counted:,}" == t5, name
        if roberta == "-":
            continue
        with torch.device("meta"):
            model = RobertaModel(RobertaConfig())
        del setting["kind"]
        counted = trainable(get_peft_model(model, TensorTrainConfig(**setting, target_modules=["query", "value"])))
        assert counted == PUBLISHED[name].parameters(8, ROBERTA_QUERY_VALUE), name
        assert f"{counted:,}" == roberta, name


def test_the_drift_of_unmerging_by_subtraction():
    def drift(dtype, cycles):
        generator = torch.Generator().manual_seed(0)
        W = (torch.randn(128, 128, generator=generator) * 0.05).to(dtype)
        merged = W.clone()
        for _ in range(cycles):
            D = (torch.randn(128, 128, generator=generator) * 0.01).to(dtype)
            merged += D
            merged -= D
        return f"{(torch.linalg.norm((merged - W).double()) / torch.linalg.norm(W.double())).item():.1e}"

    for dtype, once, often in table("merging.md", "dtype"):
        assert (drift(getattr(torch, dtype), 1), drift(getattr(torch, dtype), 1000)) == (once, often)


def test_the_errors_of_norms_that_start_from_pretrained_weights():
    def starting_error(kind, shuffled):
        model = T5ForConditionalGeneration.from_pretrained(ROOT / "assets/small_world/backbone", dtype=torch.float32)
        norms = [name for name, _ in model.named_parameters() if "layer_norm" in name]
        torch.manual_seed(0)
        for weight in map(model.get_parameter, norms):
            weight.data = weight.data[torch.randperm(len(weight)) if shuffled else slice(None)].clone()
        before = torch.cat([model.get_parameter(name).detach() for name in norms])
        merge(attach(model, kind))
        after = torch.cat([model.get_parameter(name).detach() for name in norms])
        return f"{((after - before).norm() / before.norm()).item():.1%}"

    for name, pretrained, shuffled in table("layer_norms.md", "start"):
        rank = re.search(r"rank (\d)", name)
        kind = {"kind": "tt_layer_norm", "rank": int(rank[1])} if rank else {"kind": "scale_norm"}
        assert (starting_error(kind, False), starting_error(kind, True)) == (pretrained, shuffled), name


def test_the_table_of_fields_equals_the_fields_of_the_kinds():
    kinds = {name: config for name, config in AdapterConfig.kinds.items() if not name.startswith("peft:")}
    documented = {
        (field, kind): default
        for field, default, named, _ in table("configs.md", "field")
        for kind in (set(kinds) - named_kinds(named) if named.startswith("all") else named_kinds(named))
    }
    actual = {(field.name, kind): default_of(field) for kind, config in kinds.items() for field in fields(config)}
    assert documented == actual


def test_the_messages_of_the_troubleshooting_page_are_in_the_code():
    sources = [path for floor in ("adapters", "seq2seq") for path in (ROOT / floor).rglob("*.py")]
    sources.append(Path(transformers.utils.hub.__file__))
    code = re.sub(r'"\s+f?"', "", "".join(path.read_text() for path in sources))  # strings over several lines
    rows = table("troubleshooting.md", "message")
    assert len(rows) > 15
    for message, _ in rows:
        for words in re.split(r" '[^']+' ?| '[^']+'|\.\.\.|; got|\(|\d+", message):
            assert words.strip() in code, message
