"""Which parameters are trainable and why, and that the rules are applied once."""

import pytest
import torch

import adapters


def trainable(model):
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def test_only_adapters_train(tiny_t5, any_adapter):
    base = set(dict(tiny_t5().named_parameters()))
    model = adapters.attach(tiny_t5(), any_adapter)
    expected = set(dict(model.named_parameters())) - base
    if any_adapter == {"kind": "layer_norm"}:
        expected = {name for name in base if "layer_norm" in name}
    if any_adapter == {"kind": "lm_head"}:
        expected = {"shared.weight"}
    if "frozen_cores" in any_adapter:
        assert any_adapter["frozen_cores"] == [0]
        expected = {name for name in expected if not name.endswith(("coefficients.0", "basis_0"))}
    expected = {name for name in expected if ".origin." not in name}
    assert expected
    assert trainable(model) == expected


def test_none_trains_everything(tiny_t5):
    model = adapters.attach(tiny_t5(), {"kind": "none"})
    assert trainable(model) == set(dict(model.named_parameters()))
    model = adapters.attach(tiny_t5(), [{"kind": "none"}, {"kind": "tt_lora", "frozen_cores": [0]}])
    frozen = set(dict(model.named_parameters())) - trainable(model)
    assert len(frozen) == 8
    assert all(name.endswith("cores.0") for name in frozen)


@pytest.mark.parametrize("field", ["frozen_cores", "disabled_cores"])
def test_frozen_and_disabled_cores_do_not_train(tiny_t5, batch, field):
    model = adapters.attach(tiny_t5(), {"kind": "tt_lora", "rank": 2, field: [1]})
    assert trainable(model) == {
        name for name in dict(model.named_parameters()) if name.endswith(("cores.0", "cores.2"))
    }
    model(**batch).loss.backward()
    assert {name for name, parameter in model.named_parameters() if parameter.grad is not None} == trainable(model)


def test_report_has_each_parameter_once_with_the_rule_that_decided(tiny_t5):
    model = adapters.attach(
        tiny_t5(), [{"kind": "tt_lora", "frozen_cores": [0]}, {"kind": "layer_norm", "sublayers": ["final"]}]
    )
    report = adapters.freezing_report(model)
    assert [row.name for row in report.rows] == list(dict(model.named_parameters()))
    assert set(report.trainable_names()) == trainable(model)
    reasons = {row.name: row.reason for row in report.rows}
    wi = "encoder.block.0.layer.1.DenseReluDense.wi"
    assert reasons["shared.weight"] == "the base model is frozen"
    assert reasons["encoder.final_layer_norm.weight"] == "decided by adapter kind 'layer_norm'"
    assert reasons[f"{wi}.beside.tt_lora.tasks.all_tasks.linear.cores.0"] == "frozen or disabled core of an adapter"
    assert reasons[f"{wi}.beside.tt_lora.tasks.all_tasks.linear.cores.1"] == "belongs to an adapter"
    assert sum(row.count for row in report.rows) == sum(parameter.numel() for parameter in model.parameters())
    table = str(report)
    reason = "decided by adapter kind 'layer_norm'"
    for text in ("Trainable parameters, and why", "trainable", "frozen", reason, "shared.weight"):
        assert text in table


def test_report_of_a_merged_model_equals_that_of_the_unmerged_one(tiny_t5):
    model = adapters.attach(tiny_t5(), {"kind": "tt_lora", "delta_bias": "dense"})
    rows = adapters.freezing_report(model).rows
    adapters.merge(model)
    assert adapters.freezing_report(model).rows == rows
    assert adapters.freeze(model).rows == rows


def test_reading_the_report_changes_nothing(tiny_t5):
    model = adapters.attach(tiny_t5(), {"kind": "tt_lora"})
    model.shared.weight.requires_grad_(True)
    before = trainable(model)
    report = adapters.freezing_report(model)
    assert trainable(model) == before
    assert before - set(report.trainable_names()) == {"shared.weight"}
    adapters.attach(model, {"kind": "scale_norm"})
    assert len(adapters.freezing_report(model).rows) == len(report.rows) + 12


def test_a_model_without_adapters_has_no_report(tiny_t5):
    with pytest.raises(
        adapters.ConfigurationError, match=r"got a T5ForConditionalGeneration without one: call adapters\.attach"
    ):
        adapters.freezing_report(tiny_t5())


def test_nothing_toggles_requires_grad_afterwards(tiny_t5, batch, adapter_per_mechanism):
    model = adapters.attach(tiny_t5(), adapter_per_mechanism)
    before = trainable(model)
    calls = []
    original = torch.nn.Parameter.requires_grad_

    def recorded(parameter, *args):
        calls.append(args)
        return original(parameter, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.nn.Parameter, "requires_grad_", recorded)
        for mode in (True, False):
            model.train(mode)
            model(**batch).loss.backward()
    assert calls == []
    assert trainable(model) == before


def test_training_changes_trainable_parameters_only(tiny_t5, batch, any_adapter):
    model = adapters.attach(tiny_t5(), any_adapter).train()
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    losses = []
    for _ in range(4):
        loss = model(**batch).loss
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    moved = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
    assert moved == trainable(model)
    assert losses[-1] < losses[0]
