"""Every JSON file in configs/ is a valid experiment, and every one of the demo family trains."""

import math

import pytest
import torch
from transformers import RobertaConfig, RobertaForSequenceClassification

import adapters
from seq2seq import PROJECT
from seq2seq.configuration.reading import load_experiment
from seq2seq.configuration.sweep import load_cells
from seq2seq.running.preparation import prepare
from seq2seq.running.runner import run_experiment
from third_party.models.t5 import T5Config, T5ForConditionalGeneration

CONFIGS = sorted((PROJECT / "configs").rglob("*.json"))
DEMO = sorted((PROJECT / "configs" / "demo").glob("*.json"))
GLUE = sorted((PROJECT / "configs" / "glue").glob("*.json"))
PUBLISHED = [
    path for path in sorted((PROJECT / "configs" / "formats").glob("*.json")) if path.stem in adapters.PUBLISHED
]
CLASSIFICATION_DEMO = PROJECT / "configs" / "classification" / "demo.json"
ROBERTA = sorted((PROJECT / "configs" / "classification").glob("roberta_*.json"))
ON_ROBERTA = sorted((PROJECT / "configs" / "published").glob("*.json"))
PARAMETERS = {
    "loretta_rep": 24 * (1_160 - 2 * 40),  # its code has 1,160 for a matrix, with two cores that ours absorb
    "lotr": 75_266 - 1_538,  # 75k in the results of its code, which include a linear classifier of 768 x 2 + 2
    "metatt_4d": 8 * (768 + 768) + (12 + 2) * 8**2,  # 2 D r + (L + M) r^2
    "metatt_5d": 16 * (768 + 64) + (12 + 2 + 12) * 16**2,  # r (D + D / H) + (L + M + H) r^2
    "lorta": 4 * (768 + 64 + 12 + 12 + 2),  # r (D + D / H + H + L + M)
    "tt_lora": 24 * 4 * (64 + 64 + 4 * (4 + 4 + 3 + 3)),  # a count of ours, for the shape of its code
    "roberta_lora": 24 * 8 * (768 + 768),  # 0.3 M in table 2 of LoRA
    "roberta_full_fine_tuning": 124_055_040 - 25 * 2 * 768,
}
"""Parameters of adapters on RoBERTa-base; sources are in configs/published/README.md."""
BUDGET = ("rank", "raw_shape", "d", "shape_mode", "basis_size", "share_across")
"""What the files of formats choose so that all have about as many numbers."""

WRITTEN_BY_A_COMMAND = {"corrector": ("train_file", "validation_file", "test_file")}
"""Files that a configuration names and another command writes."""


TRAINED = ("tt_lora", "bottleneck", "full_fine_tuning", "layer_norm_frozen")
"""Demos that train in a test here; every kind does in those of ``adapters``."""


def named(paths):
    return [pytest.param(path, id=path.stem) for path in paths]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_file_loads_and_is_named_as_its_experiment(path, tmp_path):
    rows = tmp_path / "rows.tsv"
    rows.write_text("source\ttarget\nhelo\thello\n")
    for cell in load_cells([path], [f"{key}={rows}" for key in WRITTEN_BY_A_COMMAND.get(path.stem, ())]):
        assert path.stem in (cell.run.experiment_name, cell.run.directory.parent.name)


def test_both_families_have_every_method():
    methods = [path.stem for path in DEMO]
    assert methods == [path.stem for path in GLUE]
    kinds = {config.kind for path in DEMO for config in load_experiment(path).adapters}
    of_other_models = {"head", "factors", "weights"}
    assert kinds >= {kind for kind in adapters.AdapterConfig.kinds if not kind.startswith("peft:")} - of_other_models


@pytest.mark.parametrize("family", [DEMO, GLUE], ids=["demo", "glue"])
def test_a_family_has_one_task_and_one_model(family):
    workloads = [load_experiment(path).workload for path in family]
    assert len({(workload.task_name, workload.model_name_or_path) for workload in workloads}) == 1


@pytest.mark.parametrize("path", named(GLUE))
def test_every_method_fits_t5_base(path):
    with torch.device("meta"):
        model = T5ForConditionalGeneration(
            T5Config(vocab_size=32128, d_model=768, d_kv=64, d_ff=3072, num_layers=12, num_heads=12, dropout_rate=0.0)
        )
        adapters.attach(model, list(load_experiment(path).adapters))
    counts = adapters.summary(model)
    assert (counts.total.trainable > 0) == (path.stem != "layer_norm_frozen")


@pytest.mark.parametrize("path", named([*ROBERTA, *ON_ROBERTA]))
def test_a_set_up_on_roberta_base_has_the_published_parameter_count(path):
    """Without the head; base and head have those of transformers' roberta-base with two labels, 124,647,170."""
    cell = load_cells([path])[0]
    sizes = {"vocab_size": 50265, "max_position_embeddings": 514, "type_vocab_size": 1, "layer_norm_eps": 1e-5}
    with torch.device("meta"):
        model = cell.attach(RobertaForSequenceClassification(RobertaConfig(**sizes)))
    counts = adapters.summary(model)
    groups = counts.groups
    assert (counts.base.parameters, groups["head"].trainable) == (124_055_040, 592_130)
    trained = sum(count.trainable for name, count in groups.items() if name not in ("head", "layer norms"))
    if path.stem in PARAMETERS:
        assert trained == PARAMETERS[path.stem]
    assert trained > 0


@pytest.mark.parametrize("path", named(PUBLISHED))
def test_a_file_named_as_a_published_method_is_that_method_but_for_its_size(path):
    (config,) = load_experiment(path).adapters
    sizes = adapters.Sizes(128, 128, heads=4)
    where = {"target_modules": list(config.target_modules), "scaling": config.scaling}
    method = adapters.AdapterConfig.from_dict(adapters.published(path.stem, sizes=sizes, **where))
    ours, theirs = ({**c.to_dict(), "modes": c.modes or ("out_in",) * c.d} for c in (config, method))
    if path.stem in ("tt_low_rank", "tensor_ring"):  # with cores for each side, or in all, as the budget has it
        ours["modes"], theirs["modes"] = (list(dict.fromkeys(fields["modes"])) for fields in (ours, theirs))
    assert {k: v for k, v in ours.items() if k not in BUDGET} == {k: v for k, v in theirs.items() if k not in BUDGET}


FEW = ["max_train_samples=16", "max_validation_samples=8", "max_test_samples=8"]


@pytest.mark.parametrize("path", named(DEMO))
def test_every_demo_has_data_a_model_and_adapters_that_fit(path, tmp_path):
    prepared = prepare(load_experiment(path, [f"output_root={tmp_path}", *FEW]), None)
    assert (adapters.summary(prepared.model).total.trainable > 0) == (path.stem != "layer_norm_frozen")


@pytest.mark.slow
@pytest.mark.parametrize(
    "path",
    [pytest.param(path, id=path.stem) for path in DEMO if path.stem in TRAINED]
    + [pytest.param(CLASSIFICATION_DEMO, id="classification")],
)
def test_demos_train_for_two_steps(path, tmp_path):
    overrides = [*FEW]
    if load_experiment(path).training["do_train"]:
        overrides += ["max_steps=2", "eval_steps=2", "save_steps=2"]
    result = run_experiment(load_experiment(path, [f"output_root={tmp_path}", *overrides]))
    assert math.isfinite(result["metrics"]["test"]["average_metrics"])
    if result["costs"]:
        assert result["costs"]["steps_measured"] == 2
    else:
        assert path.stem == "layer_norm_frozen"
